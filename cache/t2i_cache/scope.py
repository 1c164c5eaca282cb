"""Scopes: who may start from whose latents.

Shared approximate caches leak prompts and can be poisoned (arXiv 2508.20424). So a tenant's entries are its own unless
the pool says otherwise. A scope id is opaque: a tenant's name never becomes part of a file name or key.
"""

import hashlib
from typing import Literal

ScopeMode = Literal["Tenant", "Pool", "Off"]


def scope_id(mode: ScopeMode, pool: str, tenant: str) -> str | None:
    """32 hex digits for `tenant` of `pool`; one for all tenants with `Pool`; None with `Off`: nothing is cached."""
    if mode == "Off":
        return None
    owner = f"tenant\x1f{tenant}" if mode == "Tenant" else "pool"
    return hashlib.sha256(f"t2i-scope-v1\x1f{pool}\x1f{owner}".encode()).hexdigest()[:32]
