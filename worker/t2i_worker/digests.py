"""The model digest: one name for exactly these weights and configurations, equal on every machine.

Part of every latent's key, so latents of different weights never meet, even under one model name.
"""

import hashlib
from pathlib import Path

_PART_OF_MODEL = {".json", ".safetensors", ".bin", ".txt", ".model"}
_NOT_PART = {"profile.json"}
_CHUNK_BYTES = 1 << 22


def model_digest(folder: Path) -> str:
    """32 hex digits over the names and contents of all model files (embedder and profile left out)."""
    total = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.suffix not in _PART_OF_MODEL or relative.name in _NOT_PART or relative.parts[0] == "embedder":
            continue
        if not path.is_file():
            continue
        total.update(f"{relative.as_posix()}\x1f{path.stat().st_size}\x1f".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                total.update(chunk)
    return total.hexdigest()
