"""Find the folder of an address."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from t2i_sources.errors import SourceMissing
from t2i_sources.hub import CheckIndex, Download, download
from t2i_sources.hub_files import INDEX, Choice, choose_decoder_files, choose_embedder_files, choose_model_files

SCHEMES = "builtin://, file://, pvc:// or hf://"
TRAINED = "model"  # the folder of a builtin model itself, beside those of its variants


@dataclass(frozen=True, slots=True)
class SourceKind:
    """What a folder must hold.

    Attributes:
        field: The field of the pool document, for messages.
        marks: One of these files must be in the folder; empty: the caller looks itself.
        wanted: What the folder must be, in words.
        choose: Chooses the files of a hub's repository to download.
        builtin: The folder inside a builtin model.
    """

    field: str
    marks: tuple[str, ...]
    wanted: str
    choose: Choice
    builtin: str = ""


MODEL = SourceKind("model.source", (INDEX,), "a diffusers model folder", choose_model_files)
EMBEDDER = SourceKind(
    "model.embedder",
    ("model.onnx", "onnx/model.onnx"),
    "a folder with tokenizer.json and model.onnx",
    choose_embedder_files,
    builtin="embedder",
)
PREVIEW_DECODER = SourceKind(
    "model.previewDecoder", ("config.json",), "a folder of an AutoencoderTiny", choose_decoder_files
)


def component_field(name: str) -> str:
    """For messages about the component that the pool calls so."""
    return f"model.components[{name!r}]"


def control_kind(name: str) -> SourceKind:
    """Of the ControlNet that the pool calls so."""
    return SourceKind(component_field(name), ("config.json",), "a folder of a ControlNet", choose_decoder_files)


def find_folder(
    kind: SourceKind,
    source: str,
    models_dir: Path,
    revision: str = "",
    variant: str = "",
    check_index: CheckIndex | None = None,
) -> Path:
    """The folder of a source. A hub's repository is downloaded first, which may take minutes.

    `variant` (fp16, bf16) chooses the weights to download if there are several. `check_index` sees the path of a
    pipeline's index before its weights are downloaded, and may raise.

    Raises:
        SourceMissing: the folder does not exist, or is not of this kind.
        SourceUnreachable: the download fails now.
    """
    scheme, _, rest = source.partition("://")
    match scheme:
        case "builtin":
            folder = _builtin(kind, source)
        case "file":
            folder = Path(unquote(urlsplit(source).path))
        case "pvc":
            folder = _inside(kind, models_dir, rest)
        case "hf":
            repository, _, pinned = rest.partition("@")
            wanted = Download(kind.field, repository, pinned or revision or None, variant, kind.choose, check_index)
            folder = download(wanted, models_dir)
        case _:
            raise SourceMissing(f"{kind.field} must start with {SCHEMES}, got {source!r}")
    if kind.marks and not any((folder / mark).is_file() for mark in kind.marks):
        found = " or ".join(kind.marks)
        raise SourceMissing(f"{kind.field} {source!r}: no {found} found there; it must be {kind.wanted}")
    return folder


def builtin_folder(source: str) -> Path | None:
    """The folder of `builtin://NAME` or `builtin://NAME/VARIANT`; None for other sources, and for what is not here."""
    scheme, _, rest = source.partition("://")
    name, _, variant = rest.partition("/")
    spec = find_spec(f"t2i_{name}") if scheme == "builtin" and name.isidentifier() else None
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / (variant or TRAINED)
    return folder if not variant or (variant.isidentifier() and folder.is_dir()) else None


def components_of(folder: Path) -> tuple[str, ...]:
    """All names in the model's index, those with an underscore too; empty if it cannot be read."""
    try:
        index = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError):
        return ()
    return tuple(index) if isinstance(index, dict) else ()


def _builtin(kind: SourceKind, source: str) -> Path:
    folder = builtin_folder(source)
    if folder is None:
        raise SourceMissing(
            f"{kind.field}: there is no builtin model {source!r}; builtin://scenes and builtin://scenes/distilled are"
        )
    return folder.parent / TRAINED / kind.builtin if kind.builtin else folder  # variants share what is beside weights


def _inside(kind: SourceKind, models_dir: Path, relative: str) -> Path:
    root = models_dir.resolve()
    folder = (root / unquote(relative)).resolve()
    if not folder.is_relative_to(root):  # `..` or a link leads out of the volume
        raise SourceMissing(f"{kind.field}: a pvc:// path must stay inside its volume")
    return folder
