"""The worker's certificate, and whom it lets in: gateways of its own pool, nobody else. Without one it is open."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from t2i_runtime.listening import bind_server
from t2i_runtime.tls.certificates import Certificates, Shown, follow_certificates, read_certificates
from t2i_runtime.tls.guarding import OnlyFrom
from t2i_runtime.tls.reloading import Reloaded
from t2i_runtime.tls.transport import server_credentials
from t2i_worker.metrics import WorkerMetrics

log = logging.getLogger(__name__)
FIELD = "security.workerTlsSecretName"


@dataclass(frozen=True, slots=True)
class WorkerSecurity:
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


def open_security(tls_dir: Path | None, gateway_name: str, metrics: WorkerMetrics) -> WorkerSecurity:
    """Read the mounted certificate, if there is to be one.

    Raises:
        CertificatesUnusable: the Secret is missing or unusable.
    """
    if tls_dir is None:
        log.warning("INSECURE: no --tls-dir: whoever reaches this worker may call it, and prompts arrive in clear")
        return WorkerSecurity(None, ())
    shown = Shown(metrics.count_reload, metrics.show_certificate)
    certificates = follow_certificates(FIELD, tls_dir, read_certificates, shown)
    return WorkerSecurity(certificates, (OnlyFrom(gateway_name),))
