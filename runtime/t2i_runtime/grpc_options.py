"""What every gRPC server and channel of the system is made with.

A server lets clients ping as often as ordinary ones do, while their request waits and between requests: gRPC's own
limit is once in five minutes, and it cuts off whoever pings more, with GOAWAY too_many_pings. Go's clients ping every
10 s, some others every second. A server pings as well: what does not answer is gone, and its requests with it.

A connection has a bounded number of calls at once. gRPC's own is without a bound, and each call may hold a part of a
message that never ends. The calls beyond wait in the client, with their deadlines running.

A channel inside the system never asks a proxy; see `proxies` for who does.
"""

from dataclasses import dataclass

from t2i_runtime.proxies import is_this_machine

Option = tuple[str, int | str]
NO_PROXY: tuple[Option, ...] = (("grpc.enable_http_proxy", 0),)


@dataclass(frozen=True, slots=True)
class Keepalive:
    """How often clients may ping, when the server pings a silent one, and how long it then waits."""

    least_ping_interval_s: float = 0.5
    ping_after_s: float = 30.0
    answer_within_s: float = 10.0


ORDINARY = Keepalive()
MAX_STREAMS = 1024  # on one connection; a front end with a single channel may have that many images under way


def server_options(
    max_request_bytes: int = 4 << 20, keepalive: Keepalive = ORDINARY, max_streams: int = MAX_STREAMS
) -> tuple[Option, ...]:
    return (
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_concurrent_streams", max_streams),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(keepalive.least_ping_interval_s)),
        ("grpc.keepalive_time_ms", _ms(keepalive.ping_after_s)),
        ("grpc.keepalive_timeout_ms", _ms(keepalive.answer_within_s)),
        ("grpc.http2.ping_timeout_ms", _ms(keepalive.answer_within_s)),  # the one that ends it; 60 s by default
        ("grpc.http2.max_pings_without_data", 0),  # or a server stops asking a client that only listens
    )


def client_options(address: str) -> tuple[Option, ...]:
    """Options of a channel to an address that a user named: a proxy is asked for other machines only."""
    place = address.rpartition("/")[2]
    for scheme in ("dns:", "ipv4:", "ipv6:"):
        place = place.removeprefix(scheme)
    return NO_PROXY if is_this_machine(place.rpartition(":")[0] or place) else ()


def _ms(seconds: float) -> int:
    return round(1000 * seconds)
