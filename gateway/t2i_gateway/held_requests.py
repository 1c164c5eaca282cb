"""How much one gateway holds in all of clients' requests, and of answers that they have not read yet.

Texts are small; images are what can fill its memory. A request is held once as it came, and once more for each image
that it asks for: each goes to a worker in a message of its own, with all input images in it.

An answer is never refused room, as its images are drawn already. It counts, so that new requests are refused while
unread answers fill the memory; and for a new request those answers end of which nothing was read for longest.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from t2i_gateway.errors import RequestRefused
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.request import MAX_IMAGES
from t2i_policy.request.admission import Refused, RefusedReason
from t2i_protos.v1 import gateway_pb2

MAX_HELD_BYTES = 256 << 20
RETRY_AFTER_S = 1.0
STALLED_S = 5.0  # for which a client has read nothing, while others need the room


def bytes_sent_by(message: gateway_pb2.GenerateRequest) -> int:
    """What its messages to workers take until it is answered. It may not have been checked yet."""
    return message.ByteSize() * min(max(1, message.num_images), MAX_IMAGES)


@dataclass(slots=True, eq=False)
class HeldAnswer:
    """What one client has not read of its answer yet.

    Attributes:
        waits_since_s: When it last read, while something waits for it to read; None: nothing does.
        is_cut: Its room was needed for others; it no longer counts.
    """

    _requests: "HeldRequests"
    _cut: Callable[[], object]
    size_bytes: int = 0
    waits_since_s: float | None = None
    is_cut: bool = False

    def add(self, size_bytes: int) -> None:
        self._count(size_bytes)

    def offered(self) -> None:
        """From now on the client could read."""
        self.waits_since_s = self._requests.clock()

    def was_read(self, size_bytes: int) -> None:
        self._count(-size_bytes)
        self.offered()

    def all_read(self) -> None:
        """Nothing waits for the client."""
        self.waits_since_s = None

    def cut(self) -> None:
        """End it: the client has read nothing for too long."""
        self.forget()
        self.is_cut = True
        self._cut()

    def forget(self) -> None:
        self._count(-self.size_bytes)

    def _count(self, size_bytes: int) -> None:
        if not self.is_cut:
            self.size_bytes += size_bytes
            self._requests.now_bytes += size_bytes


class HeldRequests:
    """Bytes of all requests that this gateway has taken and not yet answered, and of answers not yet read."""

    def __init__(self, metrics: GatewayMetrics, most_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._most_bytes = most_bytes
        self._answers: set[HeldAnswer] = set()
        self.clock = clock
        self.now_bytes = 0

    @contextmanager
    def held(self, size_bytes: int) -> Iterator[None]:
        """Within it the request counts.

        Raises:
            RequestRefused: there is no room for it.
        """
        self._make_room(size_bytes)
        if self.now_bytes + size_bytes > self._most_bytes:
            self._metrics.refusals.labels(RefusedReason.IMAGES_FULL).inc()
            text = f"waiting requests and unread answers fill this gateway's {self._most_bytes >> 20} MiB; try again"
            raise RequestRefused(Refused(RefusedReason.IMAGES_FULL, text, RETRY_AFTER_S))
        self.now_bytes += size_bytes
        try:
            yield
        finally:
            self.now_bytes -= size_bytes

    @contextmanager
    def answer(self, cut: Callable[[], object]) -> Iterator[HeldAnswer]:
        """Within it an answer counts. `cut` ends it when others need its room."""
        held = HeldAnswer(self, cut)
        self._answers.add(held)
        try:
            yield held
        finally:
            self._answers.discard(held)
            held.forget()

    def _make_room(self, size_bytes: int) -> None:
        if self.now_bytes + size_bytes <= self._most_bytes:
            return
        until_s = self.clock() - STALLED_S
        stalled = {one: one.waits_since_s for one in self._answers if one.waits_since_s is not None and one.size_bytes}
        for answer, since_s in sorted(stalled.items(), key=lambda item: item[1]):
            if since_s > until_s or self.now_bytes + size_bytes <= self._most_bytes:
                return
            answer.cut()
