"""The condition `Secured`: what the pool's spec leaves open, in words. What is open is allowed, but never silent."""

from t2i_api.pool import PoolSpec

#: Reason and message; None = nothing is open.
Gap = tuple[str, str]


def find_gap(spec: PoolSpec) -> Gap | None:
    """The first that applies."""
    if not spec.security.authenticated:
        text = (
            "Whoever reaches a gateway may call it, and all callers are one tenant: set "
            "spec.security.clientAuthentication to Token or MutualTLS."
        )
        return "NoClientAuthentication", text
    if not spec.security.workers_secured:
        text = (
            "Gateways and workers talk in clear: set spec.security.gatewayClientTlsSecretName and workerTlsSecretName."
        )
        return "WorkersInClear", text
    if spec.cache.scope == "Pool":
        text = "Tenants start from each other's latents, as spec.cache.sharedBetweenTenants allows: use scope Tenant."
        return "LatentsShared", text
    return None
