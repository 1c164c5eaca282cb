"""Where latents are kept, as gateways and workers are told.

redis://...   both use it; its secrets come from the Secret of `storeSecretRef`: password and user as variables, the
              certificates as files; never as arguments
file://...    a folder that the owner mounts into the workers (template.volumes): each has one of its own in there
memory://     the memory of each worker
empty         a volume of each worker; gone with its pod

All but the first are a worker's own: it keeps the cache's limits there, and gateways learn from the workers what lies
where. The volume's limit is above the capacity that the worker keeps: the kubelet ends pods that pass it, and it counts
at another moment and in its own way.
"""

from urllib.parse import urlsplit

from t2i_api.cache import CachePart
from t2i_operator.manifests.child import Inputs, Manifest
from t2i_operator.manifests.pod import READABLE, Folder

CACHE_FOLDER = "/cache"
WITH_WORKERS = "workers://"
#: Of an emptyDir, beyond the capacity: a quarter, and something for small ones.
HEADROOM_DIVISOR, HEADROOM_MEBIBYTES = 4, 16
SECRET_FOLDER = "/etc/t2i-store"  # noqa: S105 - a mount point
#: As the latent store reads them (t2i_cache.stores.redis; a test compares).
VARIABLES = {"T2I_STORE_USER": "username", "T2I_STORE_PASSWORD": "password"}
TLS_FOLDER_VARIABLE = "T2I_STORE_TLS_DIR"
_PORTS = {"redis": 6379, "rediss": 6379}


def worker_store(cache: CachePart) -> list[str]:
    """The worker's `--store`, and that it is its own. A folder may be another worker's volume too, so each has its own
    folder in there, named after its pod."""
    if store_port(cache) is not None:
        return [f"--store={cache.store_url}"]
    url = cache.store_url or f"file://{CACHE_FOLDER}"
    if cache.scope == "Off":
        return ["--store=memory://"]
    if url.startswith("memory:"):
        return [f"--store={url}", "--own-store"]
    return [f"--store={url.rstrip('/')}/$(POD_NAME)", "--own-store"]


def gateway_store(cache: CachePart) -> str:
    """The gateway's `--store`: what it can reach, else it learns from the workers."""
    if cache.scope == "Off":
        return "memory://"
    return cache.store_url if store_port(cache) is not None else WITH_WORKERS


def store_port(cache: CachePart) -> int | None:
    """The port of a store on the network; None without one."""
    parts = urlsplit(cache.store_url)
    if cache.scope == "Off" or parts.scheme not in _PORTS:
        return None
    return parts.port or _PORTS[parts.scheme]


def store_pool(inputs: Inputs) -> list[str]:
    """Whose latents these are, in a server that pools of several namespaces may share."""
    return [f"--store-pool={inputs.ref.key}"] if store_port(inputs.spec.cache) is not None else []


def store_environment(cache: CachePart) -> list[Manifest]:
    """The store's user and password, each if the Secret has it, and where its certificates are."""
    secret = _secret(cache)
    if secret is None:
        return []
    variables: list[Manifest] = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key, "optional": True}}}
        for name, key in VARIABLES.items()
    ]
    return [*variables, *({"name": TLS_FOLDER_VARIABLE, "value": folder.path} for folder in certificates(cache))]


def certificates(cache: CachePart) -> list[Folder]:
    """Of a store that talks TLS."""
    secret = _secret(cache)
    if secret is None or not cache.store_url.startswith("rediss://"):
        return []
    volume = {"secret": {"secretName": secret, "defaultMode": READABLE}}
    return [Folder("store-tls", SECRET_FOLDER, volume, read_only=True)]


def own_latents(cache: CachePart) -> list[Folder]:
    """The worker's own folder, if that is where latents go."""
    if cache.scope == "Off" or cache.store_url:
        return []
    capacity = cache.capacity_mebibytes
    limit = capacity + capacity // HEADROOM_DIVISOR + HEADROOM_MEBIBYTES
    return [Folder("cache", CACHE_FOLDER, {"emptyDir": {"sizeLimit": f"{limit}Mi"}})]


def _secret(cache: CachePart) -> str | None:
    if cache.store_secret_ref is None or store_port(cache) is None:
        return None
    return cache.store_secret_ref.name
