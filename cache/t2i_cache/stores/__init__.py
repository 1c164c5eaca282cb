"""Stores: where latents lie, chosen by URL. `memory://` within one process, `file:///path` shared on one machine."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from t2i_cache.errors import StoreUrlError
from t2i_cache.keys import LatentKey
from t2i_cache.stores.directory import DirectoryStore
from t2i_cache.stores.memory import MemoryStore


class LatentStore(Protocol):
    """Bytes by key. Every call may raise `StoreError`; none is needed for a correct image."""

    async def get(self, key: LatentKey) -> bytes | None:
        """The record, or None if there is none."""

    async def put(self, key: LatentKey, data: bytes) -> None:
        """Store or replace, atomically: a reader sees the old or the new record, never a part."""

    async def delete(self, key: LatentKey) -> None:
        """Remove; missing is fine."""

    def scan(self) -> AsyncIterator[tuple[LatentKey, int]]:
        """Every key with its size in bytes, in no order."""

    async def close(self) -> None:
        """Release threads and connections."""


def open_store(url: str) -> LatentStore:
    """The store of a URL.

    Raises:
        StoreUrlError: unknown scheme or no path.
    """
    parts = urlsplit(url)
    if parts.scheme == "memory":
        return MemoryStore()
    if parts.scheme == "file" and parts.path and not parts.netloc:
        return DirectoryStore(Path(unquote(parts.path)))
    if parts.scheme in ("redis", "rediss"):
        raise StoreUrlError("redis:// stores are not supported yet; use file:///path (shared on one machine)")
    raise StoreUrlError(f"cache.storeUrl must be memory:// or file:///absolute/path, got {url!r}")


__all__ = ["DirectoryStore", "LatentStore", "MemoryStore", "open_store"]
