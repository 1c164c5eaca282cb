"""The model digest names exactly these weights and configurations; it is equal on every machine.

It is part of every latent's key. So latents of different weights never mix, even under one model name.
"""

import hashlib
from pathlib import Path

from t2i_sources import choose_model_files, components_of

_CHUNK_BYTES = 1 << 22
VARIANTS = ("fp16", "bf16")  # precisions that repositories hold weights of beside the plain ones


def variant_of(precision: str) -> str:
    """The kind of weights that a precision loads where there is a choice; empty: the plain ones."""
    return precision if precision in VARIANTS else ""


def model_digest(folder: Path, variant: str = "") -> str:
    """Hash names and contents of the files that a pipeline loads; 32 hex digits.

    `variant` is fp16, bf16, or empty for the plain weights. Other files are left out: which ones lie in the folder
    depends on how it was downloaded.
    """
    total = hashlib.blake2b(digest_size=16)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for name in choose_model_files(names, components_of(folder), variant):
        path = folder / name
        total.update(f"{name}\x1f{path.stat().st_size}\x1f".encode())  # with sizes, contents cannot run into each other
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                total.update(chunk)
    return total.hexdigest()
