"""Latents in this process's memory: for one process that is gateway and worker at once, and for tests."""

from collections.abc import AsyncIterator

from t2i_cache.errors import StoreFull
from t2i_cache.keys import LatentKey
from t2i_cache.stores.health import StoreHealth, StoreReason
from t2i_cache.stores.protocol import FoundLatent


class MemoryStore:
    """A dictionary with a byte cap of its own, so that a catalogue that lags cannot exhaust memory."""

    def __init__(self, capacity_bytes: int = 8 << 30) -> None:
        self.health = StoreHealth()
        self._capacity_bytes = capacity_bytes
        self._records: dict[LatentKey, bytes] = {}
        self._bytes = 0

    async def get(self, key: LatentKey) -> bytes | None:
        return self._records.get(key)

    async def put(self, key: LatentKey, data: bytes) -> None:
        """Raises `StoreFull` past the cap."""
        grown = self._bytes + len(data) - len(self._records.get(key, b""))
        if grown > self._capacity_bytes:
            self.health.failed(StoreReason.FULL, f"{self._capacity_bytes} bytes are in use")
            raise StoreFull(f"{self._capacity_bytes} bytes are in use")
        self._records[key] = data
        self._bytes = grown
        self.health.served(stored=True)

    async def delete(self, key: LatentKey) -> None:
        self._bytes -= len(self._records.pop(key, b""))

    async def scan(self) -> AsyncIterator[tuple[LatentKey, int]]:
        for key, data in list(self._records.items()):
            yield key, len(data)

    async def check(self) -> None:
        """Memory is always there."""

    async def block_bytes(self) -> int:
        """Memory has no blocks."""
        return 0

    async def tidy(self) -> list[FoundLatent]:
        """Nothing outlives the process."""
        return []

    async def note_uses(self, key: LatentKey, uses: int, used_s: float) -> None:
        """Nothing outlives the process."""

    async def close(self) -> None:
        self._records.clear()
        self._bytes = 0
