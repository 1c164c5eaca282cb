"""TLS for gRPC from reloaded certificates: servers take up new ones by themselves, channels are opened anew.

A server asks for its certificate at every handshake. So streams that run go on, and new connections get the new
certificate. A channel keeps what it was opened with; whoever holds it opens another when the certificates change.
"""

from collections.abc import Callable, Sequence
from typing import cast

import grpc

from t2i_runtime.grpc_options import NO_PROXY, Option
from t2i_runtime.tls.certificates import Certificates
from t2i_runtime.tls.reloading import Reloaded


def server_credentials(certificates: Reloaded[Certificates], ask_clients: bool) -> grpc.ServerCredentials:
    """`ask_clients`: only clients whose certificate the authorities in ca.crt signed may connect at all."""
    fetch = _Fetcher(certificates, ask_clients)
    return grpc.dynamic_ssl_server_credentials(fetch.now(), fetch, require_client_authentication=ask_clients)


class _Fetcher:
    """What gRPC asks at each handshake, from a thread of its own; None = as before. A race costs one rebuild."""

    def __init__(self, certificates: Reloaded[Certificates], ask_clients: bool) -> None:
        self._certificates = certificates
        self._ask_clients = ask_clients
        self._version = certificates.version

    def __call__(self) -> grpc.ServerCertificateConfiguration:
        if self._certificates.version == self._version:
            return cast(grpc.ServerCertificateConfiguration, None)  # the stubs do not know that None is an answer
        self._version = self._certificates.version
        return self.now()

    def now(self) -> grpc.ServerCertificateConfiguration:
        """The present certificates in gRPC's form."""
        current = self._certificates.current
        roots = current.authorities if self._ask_clients else None
        return grpc.ssl_server_certificate_configuration([(current.key, current.chain)], roots)


def channel_opener(
    certificates: Reloaded[Certificates] | Certificates | None, server_name: str, options: Sequence[Option]
) -> Callable[[str], grpc.aio.Channel]:
    """Opens channels to addresses inside the system, with the certificates of that moment; None = in clear.

    `server_name` is the DNS name that every server's certificate must carry, whatever address it is reached at.
    """

    def open_channel(address: str) -> grpc.aio.Channel:
        if certificates is None:
            return grpc.aio.insecure_channel(address, options=[*NO_PROXY, *options])
        current = certificates if isinstance(certificates, Certificates) else certificates.current
        credentials = grpc.ssl_channel_credentials(current.authorities, current.key, current.chain)
        named = ("grpc.ssl_target_name_override", server_name)
        return grpc.aio.secure_channel(address, credentials, options=[*NO_PROXY, *options, named])

    return open_channel
