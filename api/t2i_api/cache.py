"""`spec.cache`: whose latents a prompt may start from, where they are kept, and for how long."""

from typing import Annotated, Literal

from pydantic import Field

from t2i_api.part import Part

Address = Annotated[str, Field(max_length=2048)]


class StoreSecretRef(Part):
    """A Secret in the pool's namespace with the keys `password` (and `username`) of the store, and for rediss://
    `ca.crt` (and `tls.crt` with `tls.key`); each of them may be left out."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
    """Name of the Secret."""


class CachePart(Part):
    """The cache of latents of earlier prompts."""

    scope: Literal["Tenant", "Pool", "Off"] = "Tenant"
    """Who may start from whose latents: a tenant from its own, everybody from everybody's (also set
    sharedBetweenTenants), or nobody ("Off", in quotes: a bare Off is false in YAML)."""
    shared_between_tenants: Annotated[bool, Field(strict=True)] = False
    """Consent to scope Pool, which is refused without it: a tenant can then find out what others asked for, and plant
    what their images start from. Set it only if all clients trust each other."""
    store_url: Address = ""
    """Where latents are kept: redis://HOST:PORT (rediss:// with TLS), file:///PATH or memory://; empty is a directory
    of each worker. A user or password does not belong here: see storeSecretRef."""
    ttl_seconds: Annotated[int, Field(ge=1, le=315_360_000, strict=True)] = 86_400
    """Age at which a latent is thrown away."""
    capacity_mebibytes: Annotated[int, Field(ge=1, le=16_777_216, strict=True)] = 4096
    """Size of the store; beyond it the least useful latents go first."""
    max_reuses: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 1000
    """How many images may start from one latent; then it is thrown away."""
    store_secret_ref: StoreSecretRef | None = None
    """How to get into a redis:// or rediss:// storeUrl: a Secret in the pool's namespace. Local mode ignores it."""

    @property
    def capacity_bytes(self) -> int:
        return self.capacity_mebibytes << 20
