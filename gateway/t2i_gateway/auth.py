"""The gateway's certificates and tokens: read from mounted Secrets at the start, followed while it serves.

What is asked of callers is the pool's `spec.security`; where the Secrets are mounted is the command line's. Local mode
asks nothing and says so loudly, as does a pool without authentication.
"""

import asyncio
import logging
import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc

from t2i_api.security import SecurityPart
from t2i_gateway.identity import Identities, no_tokens
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.settings import GatewaySettings
from t2i_runtime.errors import CertificatesUnusable, TokensUnusable
from t2i_runtime.tls.certificates import Certificates, Shown, follow_certificates, read_certificates
from t2i_runtime.tls.reloading import Reloaded
from t2i_runtime.tls.server_context import server_context
from t2i_runtime.tls.transport import server_credentials
from t2i_runtime.tokens import TokenBook, read_tokens

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GatewaySecurity:
    """What is mounted (None = not used) and how callers are told apart."""

    identities: Identities
    clients: Reloaded[Certificates] | None
    workers: Reloaded[Certificates] | None
    tokens: Reloaded[TokenBook] | None

    @property
    def credentials(self) -> grpc.ServerCredentials | None:
        """What the port for clients shows and asks for; None = it speaks in clear."""
        if self.clients is None:
            return None
        return server_credentials(self.clients, ask_clients=self.identities.mode == "MutualTLS")

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The same for HTTP."""
        if self.clients is None:
            return None
        return server_context(self.clients, ask_clients=self.identities.mode == "MutualTLS")

    async def run(self) -> None:
        """Follow every Secret until cancelled."""
        async with asyncio.TaskGroup() as group:
            for followed in (self.clients, self.workers, self.tokens):
                if followed is not None:
                    group.create_task(followed.run())


def open_security(settings: GatewaySettings, part: SecurityPart, metrics: GatewayMetrics) -> GatewaySecurity:
    """Read everything that the pool asks for.

    Raises:
        CertificatesUnusable, TokensUnusable: a Secret is missing or unusable; the message names the field.
    """
    if settings.local:
        return GatewaySecurity(Identities("Local", known=settings.tenants), None, None, None)
    clients = workers = tokens = None
    if part.gateway_tls_secret_name:
        folder = _folder(settings.tls_dir, "--tls-dir", "security.gatewayTlsSecretName", CertificatesUnusable)
        read = partial(read_certificates, checks_peers=part.client_authentication == "MutualTLS")
        clients = follow_certificates("security.gatewayTlsSecretName", folder, read, _shown(metrics, "clients"))
    if part.workers_secured:
        field = "security.gatewayClientTlsSecretName"
        folder = _folder(settings.worker_tls_dir, "--worker-tls-dir", field, CertificatesUnusable)
        workers = follow_certificates(field, folder, read_certificates, _shown(metrics, "workers"))
    if part.client_authentication == "Token":
        folder = _folder(settings.tokens_dir, "--tokens-dir", "security.tokensSecretName", TokensUnusable)
        tokens = Reloaded("security.tokensSecretName", folder, read_tokens, partial(metrics.count_reload, "tokens"))
    book = (lambda: tokens.current) if tokens is not None else no_tokens
    return GatewaySecurity(Identities(part.client_authentication, book, settings.tenants), clients, workers, tokens)


def _folder(given: Path | None, flag: str, field: str, error: type[CertificatesUnusable | TokensUnusable]) -> Path:
    if given is None:
        raise error(f"{field} is set: give the folder where that Secret is mounted as {flag}, or use --local")
    return given


def _shown(metrics: GatewayMetrics, use: str) -> Shown:
    return Shown(partial(metrics.count_reload, use), metrics.certificate_end.labels(use).set)


def warn_of_gaps(settings: GatewaySettings, part: SecurityPart) -> None:
    """Say loudly what is not protected."""
    if settings.local:
        log.warning("SECURITY IS OFF (--local): no TLS, and every caller is believed to be the tenant it says it is")
        return
    if not part.authenticated:
        log.warning(
            "INSECURE: spec.security.clientAuthentication is None: whoever reaches this gateway may call it; all are "
            "one tenant and share its cached latents"
        )
    if not part.workers_secured:
        log.warning(
            "INSECURE: spec.security.workerTlsSecretName is not set: prompts and images travel between gateway and "
            "workers in clear, and only a NetworkPolicy keeps others from the workers"
        )
