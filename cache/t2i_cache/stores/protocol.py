"""What a store is, and what every store is told of its pool."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from t2i_cache.keys import LatentKey
from t2i_cache.stores.health import StoreHealth


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """What a pool may keep, for stores that bound themselves: bytes, seconds an entry lives, uses of one latent."""

    capacity_bytes: int
    ttl_s: float
    max_reuses: int = 1000


@dataclass(frozen=True, slots=True)
class FoundLatent:
    """A latent that lay there at the start: its bytes, how often it was used, and when last."""

    key: LatentKey
    size_bytes: int
    uses: int
    used_s: float


class LatentStore(Protocol):
    """Bytes by key. Every call may raise `StoreError`; none is needed for a correct image."""

    health: StoreHealth

    async def get(self, key: LatentKey) -> bytes | None:
        """The record, or None if there is none."""

    async def put(self, key: LatentKey, data: bytes) -> None:
        """Store or replace, atomically: a reader sees the old or the new record, never a part."""

    async def delete(self, key: LatentKey) -> None:
        """Remove; missing is fine."""

    def scan(self) -> AsyncIterator[tuple[LatentKey, int]]:
        """Every key with its size in bytes, in no order."""

    async def check(self) -> None:
        """Find out at the start whether it can be used; who starts goes on either way, with a line in the log."""

    async def close(self) -> None:
        """Release threads and connections."""


class OwnedStore(LatentStore, Protocol):
    """A store that one process can have to itself; `bounded` is what then keeps it in bounds."""

    async def block_bytes(self) -> int:
        """What the disk gives away at once; 0 without a disk."""

    async def tidy(self) -> list[FoundLatent]:
        """All latents. Removes whatever else lies there."""

    async def note_uses(self, key: LatentKey, uses: int, used_s: float) -> None:
        """Remember across a restart how often a latent was used, and when last."""
