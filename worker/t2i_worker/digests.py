"""The model digest names exactly these weights and configurations; it is equal on every machine.

It is part of every latent's key. So latents of different weights never mix, even under one model name.
"""

import hashlib
from pathlib import Path

from t2i_sources import IpAdapterFiles, choose_component_files, choose_decoder_files, choose_model_files, components_of

_CHUNK_BYTES = 1 << 22
#: Kinds of weights that repositories hold beside the plain ones, by the precisions that load them.
VARIANTS = {"fp16": "fp16", "bf16": "bf16", "fp8": "bf16"}


def variant_of(precision: str) -> str:
    """The kind of weights that a precision loads where there is a choice; empty: the plain ones."""
    return VARIANTS.get(precision, "")


def model_digest(folder: Path, variant: str = "") -> str:
    """Hash names and contents of the files that a pipeline loads; 32 hex digits.

    `variant` is fp16, bf16, or empty for the plain weights. Other files are left out: which ones lie in the folder
    depends on how it was downloaded.
    """
    return _files_digest(folder, choose_model_files(_names_in(folder), components_of(folder), variant))


def weights_bytes(folder: Path, variant: str = "") -> int:
    """Size of the files that `model_digest` reads."""
    names = choose_model_files(_names_in(folder), components_of(folder), variant)
    return sum((folder / name).stat().st_size for name in names)


def component_digest(folder: Path, variant: str = "") -> str:
    """As `model_digest`, of a folder that holds one component."""
    return _files_digest(folder, choose_decoder_files(_names_in(folder), (), variant))


def ip_adapter_digest(files: IpAdapterFiles) -> str:
    """As `model_digest`, of an adapter's weights and of the encoder that reads its images."""
    encoder = _files_digest(files.encoder, choose_component_files(_names_in(files.encoder)))
    return hashlib.blake2b(f"{file_digest(files.weights)} {encoder}".encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Hash the content of one file; 32 hex digits."""
    total = hashlib.blake2b(digest_size=16)
    _add(path, total)
    return total.hexdigest()


def _names_in(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _files_digest(folder: Path, names: list[str]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for name in names:
        path = folder / name
        total.update(f"{name}\x1f{path.stat().st_size}\x1f".encode())  # with sizes, contents cannot run into each other
        _add(path, total)
    return total.hexdigest()


def _add(path: Path, total: "hashlib.blake2b") -> None:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            total.update(chunk)
