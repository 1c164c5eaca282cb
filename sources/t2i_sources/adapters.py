"""Find the file of a LoRA adapter: one safetensors file, alone or in a folder or repository that may hold several."""

from collections.abc import Collection
from pathlib import Path

from t2i_sources.errors import SourceMissing
from t2i_sources.folders import SourceKind, find_folder

SUFFIX = ".safetensors"
USUAL_NAME = "pytorch_lora_weights.safetensors"  # what diffusers and its training scripts save


def find_adapter(name: str, source: str, models_dir: Path, weight_name: str = "") -> Path:
    """The file of an adapter; a hub's is downloaded first.

    `name` is that of the adapter in the pool, for messages. Pickles are never taken: loading one runs its code.

    Raises:
        SourceMissing: there is no such file, or there are several and none is named.
        SourceUnreachable: the download fails now.
    """
    field = f"model.adapters[{name!r}]"
    kind = SourceKind(field, (), f"a {SUFFIX} file, or a folder with one", choose_adapter_file)
    found = find_folder(kind, source, models_dir, variant=weight_name)
    if found.is_file() and found.suffix == SUFFIX:
        return found
    names = [path.name for path in found.iterdir() if path.is_file()] if found.is_dir() else []
    chosen = choose_adapter_file(names, (), weight_name)
    if len(chosen) == 1:
        return found / chosen[0]
    if chosen:
        raise SourceMissing(f"{field} {source!r}: set weightName to one of {', '.join(chosen)}")
    raise SourceMissing(f"{field} {source!r}: no {weight_name or f'{SUFFIX} file'} found there")


def choose_adapter_file(names: Collection[str], components: Collection[str], weight_name: str) -> list[str]:
    """The file that is named, or the usual one, or all that there are."""
    del components
    if weight_name:
        return [weight_name] if weight_name in names else []
    files = sorted(name for name in names if name.endswith(SUFFIX) and "/" not in name)
    return [USUAL_NAME] if USUAL_NAME in files else files
