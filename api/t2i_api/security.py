"""`spec.security`: who may call, how callers prove who they are, and which Secrets hold certificates and tokens.

Secrets are named, never read by the operator: it mounts them, and gateways and workers read them there, again whenever
they change. Certificate Secrets have the layout that cert-manager writes (type kubernetes.io/tls): `tls.crt` with the
chain, `tls.key`, and `ca.crt` with the authorities that the other side is checked against.
"""

from typing import Annotated, Literal

from pydantic import Field

from t2i_api.part import Part

ClientAuthentication = Literal["None", "Token", "MutualTLS"]
SecretName = Annotated[str, Field(pattern=r"^$|^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
NamespaceName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class SecurityPart(Part):
    """Who may call, how callers prove who they are, and the certificates of gateways and workers."""

    client_authentication: ClientAuthentication = "None"
    """How callers prove which tenant they are. None: not at all, all callers are one tenant. Token: a bearer token.
    MutualTLS: a client certificate; its only URI name (SPIFFE), else its only DNS name, is the tenant."""
    gateway_tls_secret_name: SecretName = ""
    """Secret (kubernetes.io/tls) with the certificate that clients see; empty: no TLS. With MutualTLS its ca.crt holds
    the authorities of client certificates. Changed contents are taken up without a restart."""
    tokens_secret_name: SecretName = ""
    """Secret whose key `tokens` has a line `sha256:HEX TENANT` for each bearer token (t2ictl token makes them); with
    Token only. Changed contents are taken up without a restart."""
    gateway_client_tls_secret_name: SecretName = ""
    """Secret (kubernetes.io/tls) with the certificate that gateways show to workers, for the DNS name
    POOL-gateway.NAMESPACE.svc; its ca.crt checks workers. Empty: no TLS between gateways and workers."""
    worker_tls_secret_name: SecretName = ""
    """Secret (kubernetes.io/tls) with the certificate of workers, for the DNS name POOL-workers.NAMESPACE.svc; its
    ca.crt checks gateways. Set it together with gatewayClientTlsSecretName; changing either rolls all pods."""
    metrics_namespaces: Annotated[tuple[NamespaceName, ...], Field(max_length=16)] = ()
    """Namespaces whose pods may scrape metrics. Empty: the pool's own; with clientAuthentication None any namespace."""

    @property
    def authenticated(self) -> bool:
        """True if callers prove who they are."""
        return self.client_authentication != "None"

    @property
    def workers_secured(self) -> bool:
        """True if gateways and workers prove to each other who they are."""
        return bool(self.worker_tls_secret_name)
