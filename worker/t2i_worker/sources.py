"""Model sources: from the pool's `model.source` to a folder in diffusers layout on this machine.

builtin://scenes            the small model that ships with t2i-serving
file:///models/sdxl         a folder
pvc://claim/path            a folder of a volume that the pod mounts at <models dir>/claim
hf://owner/name[@revision]  a model hub repository, kept under <models dir>
"""

from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from t2i_worker.errors import ModelNotFound

INDEX_NAME = "model_index.json"
_BUILTIN = {"scenes": ("t2i_scenes", "model")}


def resolve_source(source: str, models_dir: Path, revision: str = "") -> Path:
    """The folder of a source, downloaded first if it is a hub's.

    Raises:
        ModelNotFound: no such folder, or it holds no model_index.json; says what to do.
    """
    scheme, _, rest = source.partition("://")
    match scheme:
        case "builtin":
            folder = _builtin(rest)
        case "file":
            folder = Path(unquote(urlsplit(source).path))
        case "pvc":
            folder = _inside(models_dir, rest)
        case "hf":
            folder = _downloaded(rest, models_dir, revision)
        case _:
            raise ModelNotFound(f"model.source must start with builtin://, file://, pvc:// or hf://, got {source!r}")
    if not (folder / INDEX_NAME).is_file():
        raise ModelNotFound(
            f"model.source {source!r}: no {INDEX_NAME} found there; it must be a diffusers model folder"
        )
    return folder


def _builtin(name: str) -> Path:
    if name not in _BUILTIN:
        raise ModelNotFound(f"model.source: no builtin model {name!r}; there is {', '.join(sorted(_BUILTIN))}")
    package, inner = _BUILTIN[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModelNotFound(f"model.source: {package} is not installed; install t2i-serving with it")
    return Path(spec.origin).parent / inner


def _inside(models_dir: Path, relative: str) -> Path:
    root = models_dir.resolve()
    folder = (root / unquote(relative)).resolve()
    if not folder.is_relative_to(root):
        raise ModelNotFound("model.source: a pvc:// path must stay inside its volume")
    return folder


def _downloaded(name: str, models_dir: Path, revision: str) -> Path:
    """Needs the hub only when the files are not under `models_dir` yet."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, pinned = name.partition("@")
    wanted = pinned or revision or None
    try:
        return Path(snapshot_download(repository, revision=wanted, cache_dir=models_dir, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise ModelNotFound(f"model.source: {error}") from error
    try:
        return Path(snapshot_download(repository, revision=wanted, cache_dir=models_dir))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        message = f"model.source: {repository!r} is not under the models folder and cannot be downloaded: {error}"
        raise ModelNotFound(message) from error
