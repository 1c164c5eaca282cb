"""Stores: where latents lie, chosen by URL.

memory://            within one process
file:///path         shared by the processes of one machine
redis://host[:port]  a Valkey or Redis server, shared by all gateways and workers of a pool; rediss:// is with TLS
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from t2i_cache.errors import StoreUrlError
from t2i_cache.stores.bounded import BoundedStore
from t2i_cache.stores.directory import DirectoryStore
from t2i_cache.stores.health import StoreHealth, StoreReason, StoreTrouble
from t2i_cache.stores.memory import MemoryStore
from t2i_cache.stores.protocol import LatentStore, StoreLimits
from t2i_cache.stores.redis import RedisStore, open_redis

DEFAULT_LIMITS = StoreLimits(capacity_bytes=4 << 30, ttl_s=86_400.0)


def open_store(url: str, pool: str = "default", limits: StoreLimits = DEFAULT_LIMITS) -> LatentStore:
    """The store of a URL. `pool` keeps apart what several pools have in one redis:// server.

    Raises:
        StoreUrlError: unknown scheme, no path or no host, or a password in it.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return MemoryStore()
    if parts.scheme == "file" and parts.path and not parts.netloc:
        return DirectoryStore(Path(unquote(parts.path)))
    if parts.scheme in ("redis", "rediss"):
        return open_redis(url, pool, limits)
    raise StoreUrlError(
        f"cache.storeUrl must be redis://host:port, file:///absolute/path or memory://, got {url.split('@')[-1]!r}"
    )


def open_own_store(url: str, limits: StoreLimits) -> BoundedStore:
    """The store of a URL that this process has to itself: it keeps the limits there. `BoundedStore.open` comes next.

    Raises:
        StoreUrlError: no process can have this one to itself.
    """
    store = open_store(url)
    if not isinstance(store, DirectoryStore | MemoryStore):
        raise StoreUrlError(
            f"a worker's own store must be file:///absolute/path or memory://, got {url.split('@')[-1]!r}"
        )
    return BoundedStore(store, limits)


__all__ = [
    "BoundedStore",
    "DirectoryStore",
    "LatentStore",
    "MemoryStore",
    "RedisStore",
    "StoreHealth",
    "StoreLimits",
    "StoreReason",
    "StoreTrouble",
    "open_own_store",
    "open_store",
]
