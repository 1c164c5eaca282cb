"""Two gateways over one Valkey: each catalogue follows the store, whatever happens to it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from t2i_cache.follow import SharedFollower
from t2i_cache.follow import shared as shared_books
from t2i_cache.index import Vector
from t2i_cache.keys import LatentKey
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.stores import RedisStore, StoreLimits
from t2i_cache.stores.redis import open_redis
from t2i_testing_kit.valkey.server import ValkeyServer, valkey_server

CAT = LatentKey("alice", "model", "cat", 5)
TTL_S = 60.0
_pools = itertools.count(1)


@pytest.fixture(autouse=True)
def _patient_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start has the store's answer before it goes on, however late this machine brings it."""
    monkeypatch.setattr(shared_books, "RESTORE_WAIT_S", 60.0)


def unit(degrees: float) -> Vector:
    angle = np.radians(degrees)
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


def record(key: LatentKey, degrees: float = 0.0, size: int = 4) -> bytes:
    return encode_record(
        LatentRecord(key, "float16", (size,), np.ones(size, "<f2").tobytes(), unit(degrees), 1.0, "digest")
    )


class Gateway:
    """Books with their background work, and what was given up."""

    def __init__(self, url: str, pool: str, limits: StoreLimits) -> None:
        self.gone: list[str] = []
        self.store = open_redis(url, pool, limits, {})
        limits_of_books = StoreLimits(limits.capacity_bytes, limits.ttl_s, limits.max_reuses)
        self.books = SharedFollower(self.store, limits_of_books, self.gone.append)

    def steps(self, key: LatentKey = CAT) -> frozenset[int]:
        found = self.books.catalogue.nearest(key.scope, key.model, unit(0), 0.0)
        return found.steps if found is not None and found.entry_id == key.entry_id else frozenset()


@asynccontextmanager
async def gateways(
    url: str, count: int = 2, capacity: int = 1 << 20, reuses: int = 1000
) -> AsyncIterator[list[Gateway]]:
    pool = f"shared-{next(_pools)}"
    made = [Gateway(url, pool, StoreLimits(capacity, TTL_S, reuses)) for _ in range(count)]
    running = [asyncio.create_task(one.books.run()) for one in made]
    for one in made:
        await one.books.restore()
    try:
        yield made
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for one in made:
            await one.books.close()


async def until(holds: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    try:
        async with asyncio.timeout(within_s):
            while not holds():  # noqa: ASYNC110 - what is looked at has no event
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:.0f} s: {what}") from None


async def write(store: RedisStore, key: LatentKey, degrees: float = 0.0, size: int = 4) -> None:
    await store.put(key, record(key, degrees, size))


async def test_what_one_worker_stores_every_gateway_finds(valkey: ValkeyServer) -> None:
    """And what goes, goes everywhere, with its reason."""
    async with gateways(valkey.url) as (one, other):
        for step in (5, 10):
            await write(one.store, replace(CAT, step=step))
        await until(lambda: one.steps() == other.steps() == {5, 10}, "both know both latents")
        one.books.damaged(replace(CAT, step=10))
        assert one.steps() == {5}
        await until(lambda: other.steps() == {5}, "the other hears of the damage")
        await one.store.purge(scope="alice")
        await until(lambda: one.steps() == other.steps() == frozenset(), "both hear of the purge")
        assert other.gone == ["Damaged", "Purged"]


async def test_uses_of_all_gateways_count_together(valkey: ValkeyServer) -> None:
    """The reuse cap is the pool's, not each gateway's."""
    async with gateways(valkey.url, reuses=4) as (one, other):
        await write(one.store, CAT)
        await until(lambda: one.steps() == other.steps() == {5}, "both know it")
        for books in (one.books, other.books, one.books, other.books):
            books.used(CAT)
        await until(lambda: one.steps() == other.steps() == frozenset(), "worn out for both")
        assert "WornOut" in one.gone


async def test_restart_reads_what_is_there(valkey: ValkeyServer) -> None:
    """Uses and ages survive a gateway; a new one offers the same latents at once."""
    async with gateways(valkey.url, count=1) as (first,):
        await write(first.store, CAT)
        await until(lambda: first.steps() == {5}, "known")
        later = Gateway(valkey.url, first.store.prefix[5:-2], first.store.limits)
        running = asyncio.create_task(later.books.run())
        await later.books.restore()
        assert later.steps() == {5}
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await later.books.close()


async def test_trimmed_stream_is_noticed_and_everything_read_anew(valkey: ValkeyServer) -> None:
    """A gateway that fell behind what the stream keeps never goes on with a hole."""
    async with gateways(valkey.url, count=1) as (one,):
        await write(one.store, CAT)
        await until(lambda: one.steps() == {5}, "known")
        await write(one.store, replace(CAT, entry_id="dog"), 90.0)
        await until(lambda: one.books.catalogue.num_items == 2, "follows")
        script = "redis.call('HINCRBY', KEYS[1]..'meta', 'seq', 5) redis.call('DEL', KEYS[1]..'changes')"
        before = one.books.catalogue
        await one.store._client.eval(script, 1, one.store.prefix)
        await until(lambda: one.books.catalogue is not before, "a rebuilt catalogue is swapped in")
        await until(one.books.current.is_set, "it follows again")
        assert one.books.catalogue.num_items == 2
        await write(one.store, replace(CAT, step=10))
        await until(lambda: one.steps() == {5, 10}, "it follows what comes now")


async def test_store_that_was_lost_empties_the_catalogue(tmp_path: Path) -> None:
    """A server that comes back empty: no gateway offers latents of its former life, and new ones are found."""
    with valkey_server(tmp_path) as server:
        async with gateways(server.url) as (one, other):
            await write(one.store, CAT)
            await until(lambda: one.steps() == other.steps() == {5}, "both know it")
            server.kill()
            await until(lambda: not one.books.current.is_set(), "the loss is noticed")
            assert one.steps() == {5}, "meanwhile what is known stays: a fetch that misses costs little"
            server.start()
            await until(lambda: one.steps() == other.steps() == frozenset(), "both are empty")
            await until(lambda: one.books.current.is_set() and other.books.current.is_set(), "both follow")
            await write(other.store, replace(CAT, entry_id="cat", step=10))
            await until(lambda: one.steps() == other.steps() == {10}, "both know the new one")


async def test_gateway_starts_without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits a bounded time, serves without neighbours, and follows once the store is there."""
    with valkey_server(tmp_path) as server:
        server.kill()
        monkeypatch.setattr(shared_books, "RESTORE_WAIT_S", 0.2)
        async with gateways(server.url, count=1) as (one,):
            assert one.steps() == frozenset()
            server.start()
            await until(one.books.current.is_set, "it follows")
            await write(one.store, CAT)
            await until(lambda: one.steps() == {5}, "known")


async def test_nearly_full_store_gives_up_what_our_policy_thinks_least_of(valkey: ValkeyServer) -> None:
    """Marked by a gateway, evicted by the store: the prompt that was used stays, though LCBFU would take it."""
    size = 2000
    bytes_each = len(record(CAT, 0.0, size))
    async with gateways(valkey.url, count=1, capacity=10 * bytes_each + 100) as (one,):
        deep = replace(CAT, entry_id="deep", step=25)
        await write(one.store, deep, 180.0, size)
        for number in range(9):
            await write(one.store, replace(CAT, entry_id=f"e{number}", step=5), 10.0 * number, size)
        await until(lambda: one.books.catalogue.num_items == 10, "all known")
        async with asyncio.timeout(60):
            while not (await one.store.usage()).marked:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await write(one.store, replace(CAT, entry_id="new", step=10), 200.0, size)
        await until(lambda: "Capacity" in one.gone, "room was made")
        kept = {key.entry_id async for key, _ in one.store.scan()}
        assert {"deep", "new"} <= kept
        assert len(kept) == 10
