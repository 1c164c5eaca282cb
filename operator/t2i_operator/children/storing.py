"""Where latents are kept, as gateways and workers are told.

redis://...   both use it
file://...    a folder that the owner mounts into the workers (template.volumes); the gateway learns from workers
memory://     each process alone
empty         a folder of each worker, bounded by the cache's capacity; gone with its pod
"""

from urllib.parse import urlsplit

from t2i_operator.manifests import Manifest
from t2i_policy.pool import CachePart

CACHE_FOLDER = "/cache"
_PORTS = {"redis": 6379, "rediss": 6379, "valkey": 6379}


def worker_store(cache: CachePart) -> str:
    """The worker's `--store`."""
    if cache.scope == "Off":
        return "memory://"
    return cache.store_url or f"file://{CACHE_FOLDER}"


def gateway_store(cache: CachePart) -> str:
    """The gateway's `--store`: only what it can reach."""
    return cache.store_url if store_port(cache) is not None else "memory://"


def store_port(cache: CachePart) -> int | None:
    """The port of a store on the network; None without one."""
    parts = urlsplit(cache.store_url)
    if cache.scope == "Off" or parts.scheme not in _PORTS:
        return None
    return parts.port or _PORTS[parts.scheme]


def cache_volumes(cache: CachePart) -> list[Manifest]:
    """The worker's own folder, if that is where latents go."""
    if cache.scope == "Off" or cache.store_url:
        return []
    return [{"name": "cache", "emptyDir": {"sizeLimit": f"{cache.capacity_mebibytes}Mi"}}]


def cache_mounts(cache: CachePart) -> list[Manifest]:
    """See `cache_volumes`."""
    return [{"name": "cache", "mountPath": CACHE_FOLDER} for _ in cache_volumes(cache)]
