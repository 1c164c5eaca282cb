"""Fetching: the largest stored step that helps, within the limit; any trouble ends in a smaller start or in noise."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from t2i_cache.errors import StoreError, StoreUnavailable
from t2i_cache.fetching import Fetched, FetchReason, fetch_latent
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


async def filled(store: LatentStore, *steps: int) -> LatentStore:
    for step in steps:
        await store.put(key(step), latent(step))
    return store


def check_start(found: Fetched, step: int, reason: FetchReason) -> None:
    assert (found.step, found.reason) == (step, reason)
    assert (found.record is None) == (step == 0)
    if found.record is not None:
        assert found.record.key == key(step)
        assert found.record.tensor == np.full(4, step, "<f2").tobytes()


@pytest.mark.parametrize(
    ("wanted", "stored", "step", "reason"),
    [
        pytest.param(10, [5, 10, 15], 10, FetchReason.AS_REQUESTED, id="the step wanted is stored"),
        pytest.param(12, [5, 10, 15], 10, FetchReason.MISSING, id="a smaller one is the best there is"),
        pytest.param(25, [15, 5, 10], 15, FetchReason.MISSING, id="the order of the stored steps does not matter"),
        pytest.param(4, [5, 10, 15], 0, FetchReason.MISSING, id="all are larger: never skip more than wanted"),
        pytest.param(10, [], 0, FetchReason.MISSING, id="nothing is stored"),
        pytest.param(0, [5], 0, FetchReason.MISSING, id="no skipping is wanted"),
    ],
)
async def test_largest_stored_step_wins(wanted: int, stored: list[int], step: int, reason: FetchReason) -> None:
    """K' is the largest stored step <= K, and only K itself is as requested."""
    store = Store()
    await filled(store, *stored)
    check_start(await fetch_latent(store, key(wanted), stored, LONG_S), step, reason)
    assert store.asked == ([step] if step else [])


@pytest.mark.parametrize(
    ("damage", "reason", "deleted"),
    [
        pytest.param(None, FetchReason.MISSING, [], id="missing"),
        pytest.param(truncated, FetchReason.CORRUPT, [10], id="truncated"),
        pytest.param(corrupt, FetchReason.CORRUPT, [10], id="corrupt"),
        pytest.param(foreign, FetchReason.MISMATCH, [10], id="another entry's record in its place"),
    ],
)
@pytest.mark.parametrize("smaller", [[5], []], ids=["a smaller step is there", "nothing else is there"])
async def test_trouble_falls_to_smaller_step(
    damage: Callable[[int], bytes] | None, reason: FetchReason, deleted: list[int], smaller: list[int]
) -> None:
    """The reason tells of the trouble; a damaged record is deleted, so that the next request is spared; others stay."""
    store = Store()
    await filled(store, *smaller)
    if damage is not None:
        await store.put(key(10), damage(10))
    found = await fetch_latent(store, key(10), [*smaller, 10], LONG_S)
    check_start(found, smaller[0] if smaller else 0, reason)
    assert store.deleted == deleted
    assert {stored.step async for stored, _ in store.scan()} == set(smaller)


async def test_first_trouble_is_told() -> None:
    """Corrupt, then foreign, then missing, then found: the reader learns what spoilt the step it wanted."""
    store = Store()
    await filled(store, 5)
    await store.put(key(20), corrupt(20))
    await store.put(key(15), foreign(15))
    check_start(await fetch_latent(store, key(20), [5, 10, 15, 20], LONG_S), 5, FetchReason.CORRUPT)
    assert store.asked == [20, 15, 10, 5]


async def test_late_store_ends_in_noise() -> None:
    """A store that never answers costs the limit and no more, and is not asked for every step in turn."""
    store = Store(get=never)
    await filled(store, 5, 10)
    check_start(await fetch_latent(store, key(10), [5, 10], TINY_S), 0, FetchReason.LATE)
    assert store.asked == [10]


async def test_late_delete_ends_in_noise() -> None:
    """The limit also holds for deleting a damaged record."""

    class SlowDelete(Store):
        async def delete(self, key: LatentKey) -> None:
            await never()

    store = SlowDelete()
    await store.put(key(10), corrupt(10))
    found = await fetch_latent(store, key(10), [10], TINY_S)
    assert found.record is None


async def test_store_errors_never_escape() -> None:
    """A store out of order is a miss for the request, on reading and on deleting alike."""
    check_start(await fetch_latent(Store(get=broken), key(10), [5, 10], LONG_S), 0, FetchReason.MISSING)
    for error in (StoreError("?"), StoreUnavailable("read-only")):
        store = Store(delete=error)
        await filled(store, 5)
        await store.put(key(10), corrupt(10))
        check_start(await fetch_latent(store, key(10), [5, 10], LONG_S), 5, FetchReason.CORRUPT)


async def test_cancellation_escapes() -> None:
    """A client that leaves ends the fetch; it is not taken for a late store."""
    store = Store(get=never)
    task = asyncio.create_task(fetch_latent(store, key(10), [5, 10], LONG_S))
    await store.reached.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert store.asked == [10]


@pytest.mark.parametrize("kind", ["memory", "directory"])
async def test_eviction_racing_fetch_is_a_miss(kind: str, tmp_path: Path) -> None:
    """Deleted between lookup and get: a smaller start, then noise, never an error."""
    store = await filled(MemoryStore() if kind == "memory" else DirectoryStore(tmp_path), 5, 10)
    await store.delete(key(10))
    check_start(await fetch_latent(store, key(10), [5, 10], LONG_S), 5, FetchReason.MISSING)
    await store.delete(key(5))
    check_start(await fetch_latent(store, key(10), [5, 10], LONG_S), 0, FetchReason.MISSING)
    await store.close()
