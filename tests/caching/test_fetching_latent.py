"""Fetching: what is stored, within the limit; any trouble ends in noise."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from t2i_cache.errors import StoreError, StoreUnavailable
from t2i_cache.fetching import FetchReason, fetch_latent
from t2i_cache.keys import LatentKey
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.stores import DirectoryStore, LatentStore, MemoryStore

LONG_S = 60.0  # never reached: a test that waits for it fails by pytest's own limit
TINY_S = 0.01


def key(step: int, entry: str = "e") -> LatentKey:
    return LatentKey("s", "m", entry, step)


def latent(step: int, entry: str = "e") -> bytes:
    tensor = np.full(4, step, "<f2").tobytes()
    return encode_record(LatentRecord(key(step, entry), "float16", (4,), tensor, np.ones(3, np.float32), 0.0))


def truncated(step: int) -> bytes:
    return latent(step)[:-1]


def corrupt(step: int) -> bytes:
    data = latent(step)
    return data[:-1] + bytes([data[-1] ^ 1])


def foreign(step: int) -> bytes:
    return latent(step, "another")


class Store(MemoryStore):
    """A memory store whose edge can fail or hang, and that tells what was asked of it."""

    def __init__(self, get: Callable[[], Awaitable[None]] | None = None, delete: Exception | None = None) -> None:
        super().__init__()
        self._get, self._delete = get, delete
        self.asked: list[int] = []
        self.reached = asyncio.Event()
        self.deleted: list[int] = []

    async def get(self, key: LatentKey) -> bytes | None:
        self.asked.append(key.step)
        self.reached.set()
        if self._get is not None:
            await self._get()
        return await super().get(key)

    async def delete(self, key: LatentKey) -> None:
        self.deleted.append(key.step)
        if self._delete is not None:
            raise self._delete
        await super().delete(key)


async def never() -> None:
    await asyncio.Event().wait()


async def broken() -> None:
    raise StoreUnavailable("disk on fire")


async def test_stored_latent_is_found() -> None:
    store = Store()
    await store.put(key(10), latent(10))
    found = await fetch_latent(store, key(10), LONG_S)
    assert found.reason is FetchReason.AS_REQUESTED
    assert found.record is not None
    assert found.record.tensor == np.full(4, 10, "<f2").tobytes()
    assert store.asked == [10]


@pytest.mark.parametrize(
    ("damage", "reason", "deleted"),
    [
        pytest.param(None, FetchReason.MISSING, [], id="missing"),
        pytest.param(truncated, FetchReason.CORRUPT, [10], id="truncated"),
        pytest.param(corrupt, FetchReason.CORRUPT, [10], id="corrupt"),
        pytest.param(foreign, FetchReason.MISMATCH, [10], id="another entry's record in its place"),
    ],
)
async def test_trouble_ends_in_noise(
    damage: Callable[[int], bytes] | None, reason: FetchReason, deleted: list[int]
) -> None:
    """The reason tells of the trouble; a damaged record is deleted, so that the next request is spared; others stay."""
    store = Store()
    await store.put(key(5), latent(5))
    if damage is not None:
        await store.put(key(10), damage(10))
    found = await fetch_latent(store, key(10), LONG_S)
    assert (found.record, found.reason) == (None, reason)
    assert store.deleted == deleted
    assert {stored.step async for stored, _ in store.scan()} == {5}


async def test_late_store_ends_in_noise() -> None:
    """A store that never answers costs the limit and no more."""
    found = await fetch_latent(Store(get=never), key(10), TINY_S)
    assert (found.record, found.reason) == (None, FetchReason.LATE)


async def test_late_delete_ends_in_noise() -> None:
    """The limit also holds for deleting a damaged record."""

    class SlowDelete(Store):
        async def delete(self, key: LatentKey) -> None:
            await never()

    store = SlowDelete()
    await store.put(key(10), corrupt(10))
    found = await fetch_latent(store, key(10), TINY_S)
    assert found.record is None


async def test_store_errors_never_escape() -> None:
    """A store out of order is a miss for the request, on reading and on deleting alike."""
    found = await fetch_latent(Store(get=broken), key(10), LONG_S)
    assert (found.record, found.reason) == (None, FetchReason.MISSING)
    for error in (StoreError("?"), StoreUnavailable("read-only")):
        store = Store(delete=error)
        await store.put(key(10), corrupt(10))
        found = await fetch_latent(store, key(10), LONG_S)
        assert (found.record, found.reason) == (None, FetchReason.CORRUPT)


async def test_cancellation_escapes() -> None:
    """A client that leaves ends the fetch; it is not taken for a late store."""
    store = Store(get=never)
    task = asyncio.create_task(fetch_latent(store, key(10), LONG_S))
    await store.reached.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


@pytest.mark.parametrize("kind", ["memory", "directory"])
async def test_eviction_racing_fetch_is_a_miss(kind: str, tmp_path: Path) -> None:
    """Deleted between lookup and get: noise, never an error."""
    store: LatentStore = MemoryStore() if kind == "memory" else DirectoryStore(tmp_path)
    await store.put(key(10), latent(10))
    await store.delete(key(10))
    found = await fetch_latent(store, key(10), LONG_S)
    assert (found.record, found.reason) == (None, FetchReason.MISSING)
    await store.close()
