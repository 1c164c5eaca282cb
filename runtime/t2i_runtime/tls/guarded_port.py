"""A server's port that only gateways of its own pool may use, by their certificates. Without one it is open."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from t2i_runtime.listening import bind_server
from t2i_runtime.tls.certificates import Certificates, Shown, follow_certificates, read_certificates
from t2i_runtime.tls.guarding import OnlyFrom
from t2i_runtime.tls.reloading import Reloaded
from t2i_runtime.tls.transport import server_credentials

FIELD = "security.workerTlsSecretName"


@dataclass(frozen=True, slots=True)
class GuardedPort:
    """`certificates` None = no TLS: whoever reaches the port may call."""

    certificates: Reloaded[Certificates] | None
    interceptors: Sequence[grpc.aio.ServerInterceptor]

    def bind(self, server: grpc.aio.Server, listen: str) -> int:
        """Open the port of gateways; returns its number."""
        certificates = self.certificates
        credentials = None if certificates is None else server_credentials(certificates, ask_clients=True)
        return bind_server(server, listen, credentials)

    async def run(self) -> None:
        """Follow the Secret until cancelled."""
        if self.certificates is not None:
            await self.certificates.run()


def open_guarded_port(tls_dir: Path | None, gateway_name: str, shown: Shown) -> GuardedPort:
    """Read the mounted certificate, if there is to be one.

    Raises:
        CertificatesUnusable: the Secret is missing or unusable.
    """
    if tls_dir is None:
        return GuardedPort(None, ())
    certificates = follow_certificates(FIELD, tls_dir, read_certificates, shown)
    return GuardedPort(certificates, (OnlyFrom(gateway_name),))
