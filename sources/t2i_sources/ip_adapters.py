"""Find the files of an IP-Adapter: one safetensors file, and the folder of the encoder that reads its images."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from t2i_sources.errors import SourceMissing
from t2i_sources.folders import SourceKind, component_field, find_folder
from t2i_sources.hub_files import choose_component_files

USUAL_ENCODER = "image_encoder"


@dataclass(frozen=True, slots=True)
class IpAdapterFiles:
    """`encoder` is a folder in the layout of transformers."""

    weights: Path
    encoder: Path


def find_ip_adapter(
    name: str, source: str, models_dir: Path, weight_name: str, image_encoder: str | None = None
) -> IpAdapterFiles:
    """The files of an adapter; a hub's are downloaded first.

    `name` is that of the component in the pool, for messages. `weight_name` is a path inside the source, and so is
    `image_encoder`, or it is an address of its own. Without an `image_encoder` it is beside the weights.

    Raises:
        SourceMissing: one of them is not there.
        SourceUnreachable: the download fails now.
    """
    field = component_field(name)
    elsewhere = image_encoder if image_encoder and "://" in image_encoder else None
    encoder = None if elsewhere else image_encoder or str(PurePosixPath(weight_name).parent / USUAL_ENCODER)
    wanted = f"a folder with {weight_name}"
    kind = SourceKind(field, (weight_name,), wanted, partial(choose_ip_adapter_files, weight_name, encoder))
    asked = f"{weight_name}+{encoder}"  # a download of other files of this repository is not this one
    folder = find_folder(kind, source, models_dir, variant=asked)
    if elsewhere:
        mark = ("config.json",)
        apart = SourceKind(f"{field}.imageEncoder", mark, "a folder of an image encoder", _choose_encoder_files)
        return IpAdapterFiles(folder / weight_name, find_folder(apart, elsewhere, models_dir))
    if not (folder / str(encoder) / "config.json").is_file():
        raise SourceMissing(
            f"{field} {source!r}: no image encoder in {encoder}; set imageEncoder to its folder or its own address"
        )
    return IpAdapterFiles(folder / weight_name, folder / str(encoder))


def choose_ip_adapter_files(
    weight_name: str, encoder: str | None, names: Collection[str], components: Collection[str], variant: str
) -> list[str]:
    """The adapter's own file, and the settings and weights of the encoder, unless that is elsewhere."""
    del components, variant
    prefix = f"{encoder}/"
    inside = [name.removeprefix(prefix) for name in names if encoder and name.startswith(prefix)]
    chosen = [prefix + name for name in choose_component_files(inside)]
    return sorted([*(name for name in names if name == weight_name), *chosen])


def _choose_encoder_files(names: Collection[str], components: Collection[str], variant: str) -> list[str]:
    del components, variant
    return choose_component_files(names)
