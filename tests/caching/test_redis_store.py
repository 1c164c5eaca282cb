"""The shared store against a real Valkey: byte cap, scores, TTL, reuse cap, purge, and what trouble costs."""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_cache.errors import StoreFull, StoreUnavailable, StoreUrlError
from t2i_cache.keys import LatentKey
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.stores import RedisStore, StoreLimits
from t2i_cache.stores.redis import open_redis
from t2i_cache.stores.redis.circuit_breaker import MAX_REST_S, PATIENCE, CircuitBreaker
from t2i_testing_kit.programs import eventually
from t2i_testing_kit.valkey.server import PASSWORD, ValkeyServer, valkey_server

KEY = LatentKey("alice", "model", "cat", 5)
BACK_WITHIN_S = 60.0
_pools = itertools.count(1)


def store_of(
    valkey: ValkeyServer, capacity_bytes: int = 1000, ttl_s: float = 60.0, max_reuses: int = 1000
) -> RedisStore:
    """A pool of its own."""
    return open_redis(valkey.url, f"pool-{next(_pools)}", StoreLimits(capacity_bytes, ttl_s, max_reuses), {})


@pytest.fixture
async def store(valkey: ValkeyServer) -> AsyncIterator[RedisStore]:
    made = store_of(valkey)
    yield made
    await made.close()


def key(entry: str, step: int = 5, scope: str = "alice", model: str = "model") -> LatentKey:
    return LatentKey(scope, model, entry, step)


def record(of: LatentKey, digest: str = "d1") -> bytes:
    tensor = np.ones(4, "<f2").tobytes()
    return encode_record(LatentRecord(of, "float16", (4,), tensor, np.array([0.6, 0.8], np.float32), 1.0, digest))


async def held(store: RedisStore) -> set[tuple[str, int]]:
    return {(found.entry_id, found.step) async for found, _ in store.scan()}


async def test_full_pool_gives_up_the_least_hits_times_steps(store: RedisStore) -> None:
    """LCBFU: 1 use x 10 goes before 3 uses x 5, and the cap is never exceeded."""
    await store.put(key("used", 5), bytes(400))
    await store.put(key("deep", 10), bytes(400))
    for _ in range(2):
        await store.count_use(key("used", 5))
    await store.put(key("new", 20), bytes(400))
    assert await held(store) == {("used", 5), ("new", 20)}
    assert (await store.usage()).used_bytes == 800


async def test_marked_latents_go_first_and_a_use_takes_the_mark_off(store: RedisStore) -> None:
    """A gateway's policy says what goes, before any score; what is used meanwhile stays."""
    for name in ("a", "b", "c"):
        await store.put(key(name), bytes(300))
    await store.mark([key("c"), key("b")])
    assert (await store.usage()).marked == 2
    await store.count_use(key("c"))
    await store.put(key("d"), bytes(300))
    assert await held(store) == {("a", 5), ("c", 5), ("d", 5)}


async def test_new_marks_replace_the_old(store: RedisStore) -> None:
    """Marks are the newest opinion, not a sum of all."""
    for name in ("a", "b", "c"):
        await store.put(key(name), bytes(300))
    await store.mark([key("a"), key("b")])
    await store.mark([key("c")])
    assert (await store.usage()).marked == 1
    await store.put(key("d"), bytes(300))
    assert ("c", 5) not in await held(store)


async def test_latent_larger_than_the_pool_is_refused(store: RedisStore) -> None:
    """And nothing is given up for it."""
    await store.put(KEY, bytes(900))
    with pytest.raises(StoreFull):
        await store.put(key("dog"), bytes(1001))
    assert await held(store) == {("cat", 5)}


async def test_past_its_ttl_nothing_can_be_read(valkey: ValkeyServer) -> None:
    """The server itself forgets the bytes at that moment, with no process of ours alive; the books follow a sweep."""
    store = store_of(valkey, ttl_s=0.2)
    await store.put(KEY, b"secret")
    await store.put(key("old"), b"older", age_s=10.0)
    eventually("the bytes are gone", lambda: valkey.command("GET", f"{store.prefix}l:{KEY.text}") == b"$-1\r\n")
    assert await store.get(key("old")) is None
    assert await store.expire() == 2
    usage = await store.usage()
    assert (usage.used_bytes, usage.items, usage.entries) == (0, 0, 0)
    await store.close()


async def test_latent_is_used_only_so_often(valkey: ValkeyServer) -> None:
    """The cap counts the uses of all gateways together."""
    one, other = store_of(valkey, max_reuses=3), None
    other = open_redis(valkey.url, one.prefix[5:-2], one.limits, {})
    await one.put(KEY, b"x")
    uses = [await store.count_use(KEY) for store in (one, other, one, other, one)]
    assert uses == [2, 3, 4, 0, 0]
    assert await one.get(KEY) is None
    for store in (one, other):
        await store.close()


@pytest.mark.parametrize(
    ("scope", "digest", "left"),
    [("alice", "", {"c"}), ("", "d1", {"b"}), ("alice", "d1", {"b", "c"}), ("", "", set())],
    ids=["by tenant", "by model", "by both", "the whole pool"],
)
async def test_purge_takes_what_is_named(valkey: ValkeyServer, scope: str, digest: str, left: set[str]) -> None:
    """Every step of it, and the books balance."""
    store = store_of(valkey, capacity_bytes=10_000)
    for name, of_scope, of_digest in (("a", "alice", "d1"), ("b", "alice", "d2"), ("c", "bob", "d1")):
        for step in (5, 10):
            await store.put(key(name, step, of_scope), record(key(name, step, of_scope), of_digest))
    dropped = await store.purge(scope, digest)
    assert {name for name, _ in await held(store)} == left
    assert dropped == 2 * (3 - len(left))
    assert (await store.usage()).items == 2 * len(left)
    await store.close()


async def test_pools_do_not_meet_in_one_server(valkey: ValkeyServer) -> None:
    """Equal keys of two pools are two latents; purging one pool leaves the other."""
    one, other = store_of(valkey), store_of(valkey)
    await one.put(KEY, b"one")
    await other.put(KEY, b"other")
    assert await one.get(KEY) == b"one"
    await one.purge()
    assert (await one.get(KEY), await other.get(KEY)) == (None, b"other")
    for store in (one, other):
        await store.close()


operations = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "use", "drop", "mark", "purge"]),
        st.sampled_from("abc"),
        st.integers(1, 3),
        st.integers(0, 60),
    ),
    max_size=30,
)


@settings(max_examples=25, deadline=None)
@given(operations=operations)
def test_books_balance_and_never_exceed_the_cap(
    valkey_session: ValkeyServer, operations: list[tuple[str, str, int, int]]
) -> None:
    """Whatever happens, the counters equal what is listed, and that is at most the cap."""
    asyncio.run(_apply(valkey_session, operations))


async def _apply(valkey: ValkeyServer, operations: list[tuple[str, str, int, int]]) -> None:
    store = store_of(valkey, capacity_bytes=100)
    for kind, name, step, size in operations:
        of = key(name, step)
        if kind == "put":
            await store.put(of, bytes(size))
        elif kind == "use":
            await store.count_use(of)
        elif kind == "drop":
            await store.drop([of], "Damaged")
        elif kind == "mark":
            await store.mark([of, key(name, 1)])
        else:
            await store.purge(scope="alice")
        usage, sizes = await store.usage(), {of: size async for of, size in store.scan()}
        assert usage.used_bytes == sum(sizes.values()) <= 100
        assert (usage.items, usage.entries) == (len(sizes), len({of.entry_id for of in sizes}))
    await store.close()


async def test_server_without_memory_makes_room_or_says_full(tmp_path: Path) -> None:
    """maxmemory with noeviction: old latents go and the put succeeds; reading works all the time."""
    with valkey_server(tmp_path, "--maxmemory", "6mb", "--maxmemory-policy", "noeviction") as server:
        store = store_of(server, capacity_bytes=1 << 30)
        data = bytes(100_000)
        for number in range(80):
            await store.put(key(f"e{number}"), data)
        assert await store.get(key("e79")) == data
        assert await store.get(key("e0")) is None
        with pytest.raises(StoreFull):
            await store.put(key("huge"), bytes(7 << 20))
        await store.close()


async def test_silent_server_costs_the_callers_limit_then_nothing(tmp_path: Path) -> None:
    """A hanging server: each of the first calls ends at the caller's own limit, later ones at once; then it is back."""
    with valkey_server(tmp_path) as server:
        store = store_of(server)
        await store.put(KEY, b"x")
        server.pause()
        began_s = time.monotonic()
        for _ in range(PATIENCE):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):  # the server hangs: it comes
                    await store.get(KEY)
        resting = store._resting
        assert resting.until_s > began_s
        store._resting = replace(resting, until_s=math.inf)  # the rest is short, and we may ask late
        with pytest.raises(StoreUnavailable, match="left alone"):
            await store.get(KEY)
        store._resting = resting
        server.resume()
        assert await _back(store) == b"x"
        await store.close()


async def test_killed_server_is_used_again_when_it_is_back(tmp_path: Path) -> None:
    """Calls fail as StoreUnavailable while it is down; a new server on the same port serves, empty."""
    with valkey_server(tmp_path) as server:
        store = store_of(server)
        await store.put(KEY, b"x")
        server.kill()
        for _ in range(2 * PATIENCE):
            with pytest.raises(StoreUnavailable):
                await store.get(KEY)
        server.start()
        assert await _back(store) is None
        await store.put(KEY, b"y")
        assert await store.get(KEY) == b"y"
        await store.close()


async def _back(store: RedisStore) -> bytes | None:
    async with asyncio.timeout(BACK_WITHIN_S):
        while True:
            try:
                return await store.get(KEY)
            except StoreUnavailable:
                await asyncio.sleep(0.02)


async def test_answers_after_given_up_calls_are_their_own(valkey: ValkeyServer) -> None:
    """Calls that are cancelled at any moment never leave their answer to the next caller."""
    store = store_of(valkey, capacity_bytes=1 << 20)
    for number in range(8):
        await store.put(key(f"e{number}"), bytes([number]) * 5000)
    for delay_s in [*np.linspace(0, 0.002, 40)]:
        calls = [asyncio.create_task(store.get(key(f"e{number}"))) for number in range(8)]
        await asyncio.sleep(float(delay_s))
        for call in calls[::2]:
            call.cancel()
        for number, found in enumerate(await asyncio.gather(*calls, return_exceptions=True)):
            assert isinstance(found, BaseException) or found == bytes([number]) * 5000
        store._resting = CircuitBreaker()
    await store.close()


async def test_password_comes_from_the_environment(tmp_path: Path) -> None:
    """With it the store serves; without it, it is unavailable, and the message does not hold it."""
    with valkey_server(tmp_path, "--requirepass", PASSWORD) as server:
        limits = StoreLimits(1000, 60.0)
        knows = open_redis(server.url, "pool", limits, {"T2I_STORE_PASSWORD": PASSWORD})
        await knows.put(KEY, b"x")
        assert await knows.get(KEY) == b"x"
        guesses = open_redis(server.url, "pool", limits, {"T2I_STORE_PASSWORD": "wrong"})
        with pytest.raises(StoreUnavailable) as refusal:
            await guesses.get(KEY)
        assert "wrong" not in str(refusal.value).replace("wrong username", "").replace("WRONGPASS", "")
        for store in (knows, guesses):
            await store.close()


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("redis://:hunter2@host:6379", "T2I_STORE_PASSWORD"),
        ("redis://", "host:port"),
        ("redis://host:port", "port must be a number"),
        ("redis://host:6379/zero", "host:port"),
        ("redis://host:6379?password=hunter2", "host:port"),
    ],
)
def test_unusable_url_is_refused_and_never_repeated(url: str, named: str) -> None:
    """The message says what to do, and does not show a password that was in it."""
    with pytest.raises(StoreUrlError, match=named) as refusal:
        open_redis(url, "pool", StoreLimits(1, 1.0), {})
    assert "hunter2" not in str(refusal.value)


def test_rest_grows_and_one_answer_ends_it() -> None:
    """Patience first, then rests that double up to a bound."""
    resting, lengths = CircuitBreaker(), []
    for now_s in range(10):
        resting = resting.after_failure(float(now_s))
        lengths.append(max(0.0, resting.until_s - now_s))
    assert lengths[: PATIENCE - 1] == [0.0] * (PATIENCE - 1)
    assert lengths[PATIENCE - 1 :] == sorted(lengths[PATIENCE - 1 :])
    assert lengths[-1] == MAX_REST_S
    assert not resting.after_success().rests(10.0)
