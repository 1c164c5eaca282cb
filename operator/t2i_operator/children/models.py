"""Where workers find the model and gateways the embedder: a claim for pvc:// sources, else a folder to download to."""

from t2i_api.pool import PoolSpec
from t2i_operator.manifests import Manifest

MODELS_FOLDER = "/models"
VOLUME = "models"


def models_volume(source: str) -> Manifest:
    """A `pvc://CLAIM/PATH` source is a claim; other sources need at most a folder to download to."""
    claim = _claim(source)
    if claim is None:
        return {"name": VOLUME, "emptyDir": {}}
    return {"name": VOLUME, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}


def models_mount(source: str) -> Manifest:
    """See `models_volume`."""
    claim = _claim(source)
    if claim is None:
        return {"name": VOLUME, "mountPath": MODELS_FOLDER}
    return {"name": VOLUME, "mountPath": f"{MODELS_FOLDER}/{claim}", "readOnly": True}


def embedder_arguments(spec: PoolSpec) -> list[str]:
    """Of the gateway; none where nothing is looked up."""
    source = _embedder(spec)
    if not source:
        return []
    return [f"--embedder={source}", *([f"--models-dir={MODELS_FOLDER}"] if _needs_folder(source) else [])]


def embedder_volumes(spec: PoolSpec) -> list[Manifest]:
    """Of the gateway."""
    source = _embedder(spec)
    return [models_volume(source)] if _needs_folder(source) else []


def embedder_mounts(spec: PoolSpec) -> list[Manifest]:
    """See `embedder_volumes`."""
    source = _embedder(spec)
    return [models_mount(source)] if _needs_folder(source) else []


def _embedder(spec: PoolSpec) -> str:
    return spec.model.embedder_source if spec.cache.scope != "Off" else ""


def _needs_folder(source: str) -> bool:
    return source.startswith(("hf://", "pvc://"))


def _claim(source: str) -> str | None:
    scheme, _, rest = source.partition("://")
    return rest.partition("/")[0] if scheme == "pvc" else None
