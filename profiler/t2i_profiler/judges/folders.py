"""The weights of a judge: which files of a hub's repository, where they lie, and their digest."""

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i_profiler.errors import JudgeUnusable
from t2i_sources import SourceKind, SourceMissing, choose_component_files, find_folder

_OTHER_LIBRARY = re.compile(r"^open_clip_")
_VISION_WEIGHTS = re.compile(r"^(vgg16|alexnet)-[0-9a-f]{8}\.pth$")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def choose_transformers_files(names: Collection[str], components: Collection[str], variant: str) -> list[str]:
    """Settings, tokenizer and one set of weights of a model of transformers that is a whole repository."""
    del components
    return choose_component_files([one for one in names if "/" not in one and not _OTHER_LIBRARY.match(one)], variant)


def choose_vision_files(names: Collection[str], components: Collection[str], variant: str) -> list[str]:
    """The weights of a torchvision network: the file that torchvision publishes, or timm's."""
    del components, variant
    published = sorted(one for one in names if _VISION_WEIGHTS.match(one))
    return published[:1] or [one for one in WEIGHTS if one in names][:1]


@dataclass(frozen=True, slots=True)
class JudgeFolder:
    """A folder with a judge's files, and their digest (32 hex digits)."""

    path: Path
    digest: str


def find_judge_folder(kind: SourceKind, source: str, models_dir: Path, parts: Sequence[str]) -> JudgeFolder:
    """The folder of an address, downloaded first if it is a hub's; `parts`: patterns of the files that count.

    Raises:
        JudgeUnusable: there is none, it cannot be downloaded now, or it holds no such files.
    """
    try:
        path = find_folder(kind, source, models_dir)
    except SourceMissing as error:
        raise JudgeUnusable(str(error)) from error
    files = sorted({one for part in parts for one in path.glob(part) if one.is_file()})
    if not files:
        raise JudgeUnusable(f"{kind.field} {source!r}: no {' or '.join(parts)} found there; it must be {kind.wanted}")
    return JudgeFolder(path, digest_files(files))


def digest_files(files: Sequence[Path]) -> str:
    """Of names and contents."""
    total = hashlib.blake2b(digest_size=16)
    for path in files:
        total.update(f"\x1f{path.name}\x1f".encode())
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                total.update(chunk)
    return total.hexdigest()


def read_weights(path: Path) -> dict[str, Any]:
    """Tensors by name, of a safetensors file or of a pickle with tensors only.

    Raises:
        JudgeUnusable: it is damaged, or holds other objects.
    """
    import torch
    from safetensors.torch import load_file

    try:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle raises depends on its bytes
        raise JudgeUnusable(f"{path.name} cannot be read, is the download complete? {str(error)[:200]}") from error
    if not isinstance(found, dict):
        raise JudgeUnusable(f"{path.name} holds no weights by name")
    inside = found.get("state_dict", found)
    return dict(inside)
