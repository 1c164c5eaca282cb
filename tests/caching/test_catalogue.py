"""The catalogue: who may find which latent, for how long, and what goes when there is no room."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_cache.catalogue import Catalogue, Deletion
from t2i_cache.follow.own import delete_latent, read_store
from t2i_cache.index import Vector
from t2i_cache.keys import LatentKey
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.stores import DirectoryStore, MemoryStore, StoreLimits
from t2i_policy.eviction import LOW_WATER, EvictionPolicy, EvictionReason
from t2i_simulator.rivals.eviction import LCBFU

ENTRY = LatentKey("alice", "model", "cat", 0)
TTL_S = 100.0


def catalogue(capacity_bytes: int = 1000, max_reuses: int = 1000) -> Catalogue:
    return Catalogue(StoreLimits(capacity_bytes, TTL_S, max_reuses))


def unit(degrees: float) -> Vector:
    angle = np.radians(degrees)
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


def steps_found(books: Catalogue, entry: LatentKey = ENTRY, now_s: float = 0.0) -> frozenset[int]:
    found = books.nearest(entry.scope, entry.model, unit(0), now_s)
    return found.steps if found else frozenset()


def deleted(deletions: list[Deletion]) -> list[tuple[str, int, EvictionReason]]:
    return [(one.key.entry_id, one.key.step, one.reason) for one in deletions]


@pytest.mark.parametrize(
    "other", [replace(ENTRY, scope="bob"), replace(ENTRY, model="another")], ids=["another tenant", "another model"]
)
def test_other_scope_and_model_find_nothing(other: LatentKey) -> None:
    """The identical prompt of another tenant, or for another model, is a miss; its hits and damage do not count."""
    books = catalogue()
    books.record_stored(ENTRY, unit(0), [(5, 10)], 0.0)
    assert steps_found(books, other) == frozenset()
    books.record_hit(replace(other, step=5), 0.0)
    assert books.record_damaged(replace(other, step=5)) == []
    assert steps_found(books) == {5}


def test_nearest_entry_with_its_steps() -> None:
    """The closer of two prompts, with cosine and stored steps; an entry without latents is never offered."""
    books = catalogue()
    books.record_stored(ENTRY, unit(60), [(5, 10), (10, 10)], 0.0)
    books.record_stored(replace(ENTRY, entry_id="dog"), unit(20), [(15, 10)], 0.0)
    books.record_stored(replace(ENTRY, entry_id="none"), unit(0), [], 0.0)
    found = books.nearest("alice", "model", unit(0), 0.0)
    assert found is not None
    assert (found.entry_id, found.steps) == ("dog", {15})
    assert found.similarity == pytest.approx(np.cos(np.radians(20)), abs=1e-5)
    assert (books.num_entries, books.num_items, books.used_bytes) == (2, 3, 30)


def test_draw_chooses_among_near_equal_only() -> None:
    """Which of two equally close prompts was used tells nothing for certain; a clearly closer one always wins."""
    books = catalogue()
    for name, degrees in (("a", 1.0), ("b", -1.0), ("far", 30.0)):
        books.record_stored(replace(ENTRY, entry_id=name), unit(degrees), [(5, 10)], 0.0)
    draws = [books.nearest("alice", "model", unit(0), 0.0, draw) for draw in (0.0, 0.49, 0.51, 0.999)]
    assert {one.entry_id for one in draws if one} == {"a", "b"}
    assert draws[0] != draws[-1]


def test_entry_past_its_ttl_is_passed_over_and_given_up() -> None:
    """Not offered from the moment on, whether or not `expire` has run, and named for deletion once."""
    books = catalogue()
    books.record_stored(ENTRY, unit(0), [(5, 10)], 0.0)
    assert steps_found(books, now_s=TTL_S) == {5}
    assert steps_found(books, now_s=TTL_S + 1) == frozenset()
    assert deleted(books.expire(TTL_S + 1)) == [("cat", 5, EvictionReason.EXPIRED)]
    assert books.expire(TTL_S + 1) == []
    assert (books.num_entries, books.used_bytes) == (0, 0)


def test_latent_is_reused_only_so_often() -> None:
    """The reuse cap bounds how many images descend from one latent; the entry's other steps live on."""
    books = catalogue(max_reuses=3)
    books.record_stored(ENTRY, unit(0), [(5, 10), (10, 10)], 0.0)
    for _ in range(3):
        books.record_hit(replace(ENTRY, step=5), 1.0)
    assert steps_found(books) == {10}
    assert deleted(books.expire(1.0)) == [("cat", 5, EvictionReason.WORN_OUT)]


@pytest.mark.parametrize(
    ("eviction", "gone_step"),
    [
        pytest.param(None, 5, id="ours: 10 serves nearly all that 5 does, and more"),
        pytest.param(LCBFU(), 10, id="LCBFU: 3 hits x 5 outweigh 1 x 10"),
    ],
)
def test_least_worth_goes_first(eviction: EvictionPolicy | None, gone_step: int) -> None:
    """The policy it is made with decides, from hits, steps and the clock; ours without being asked for."""
    books = Catalogue(StoreLimits(100, TTL_S), eviction)
    books.record_stored(ENTRY, unit(0), [(5, 40), (10, 40)], 0.0)
    for _ in range(2):
        books.record_hit(replace(ENTRY, step=5), 1.0)
    gone = books.record_stored(replace(ENTRY, entry_id="dog"), unit(90), [(12, 40)], 4.0)
    assert deleted(gone) == [("cat", gone_step, EvictionReason.CAPACITY)]


def test_prompt_in_use_outlives_a_forgotten_one() -> None:
    """Room is made by what nobody used for a while, though it was used more often."""
    books = catalogue(capacity_bytes=100)
    books.record_stored(replace(ENTRY, entry_id="famous"), unit(60), [(10, 40)], 0.0)
    books.record_stored(ENTRY, unit(0), [(10, 40)], 50.0)
    for _ in range(9):
        books.record_hit(replace(ENTRY, entry_id="famous", step=10), 1.0)
    gone = books.record_stored(replace(ENTRY, entry_id="dog"), unit(90), [(10, 40)], 60.0)
    assert deleted(gone) == [("famous", 10, EvictionReason.CAPACITY)]


def test_storing_again_replaces() -> None:
    """The same prompt drawn twice takes its place once."""
    books = catalogue()
    for size in (10, 30):
        books.record_stored(ENTRY, unit(0), [(5, size)], 0.0)
    assert (books.num_items, books.used_bytes) == (1, 30)


def test_damaged_latent_is_gone_at_once() -> None:
    """A reader's report takes it out of the lookup, once; the last one takes the entry out of the index."""
    books = catalogue()
    books.record_stored(ENTRY, unit(0), [(5, 10), (10, 10)], 0.0)
    assert deleted(books.record_damaged(replace(ENTRY, step=10))) == [("cat", 10, EvictionReason.DAMAGED)]
    assert steps_found(books) == {5}
    assert books.record_damaged(replace(ENTRY, step=10)) == []
    books.record_damaged(replace(ENTRY, step=5))
    assert books.nearest("alice", "model", unit(0), 0.0) is None


operations = st.lists(
    st.tuples(
        st.sampled_from(["store", "hit", "damage", "expire"]),
        st.sampled_from("abcd"),
        st.sampled_from(["alice", "bob"]),
        st.integers(1, 4),
        st.integers(1, 60),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(operations=operations)
def test_books_balance_and_never_exceed_the_cap(operations: list[tuple[str, str, str, int, int]]) -> None:
    """Whatever happens: at most the cap is stored, and what is stored is what was put minus what was given up."""
    books, held = catalogue(capacity_bytes=100), dict[LatentKey, int]()
    for now_s, (kind, name, scope, step, size) in enumerate(operations):
        key = LatentKey(scope, "model", name, step)
        gone: list[Deletion] = []
        if kind == "store":
            held[key] = size
            gone = books.record_stored(key, unit(ord(name)), [(step, size)], now_s * 10.0)
        elif kind == "hit":
            books.record_hit(key, now_s * 10.0)
        elif kind == "damage":
            gone = books.record_damaged(key)
        else:
            gone = books.expire(now_s * 10.0)
        for one in gone:
            del held[one.key]
        assert books.used_bytes == sum(held.values()) <= 100
        assert books.num_items == len(held)
        assert books.num_entries == len({(key.scope, key.entry_id) for key in held})
        if any(one.reason is EvictionReason.CAPACITY for one in gone):
            assert books.used_bytes <= 100 * LOW_WATER


def record(entry: LatentKey, degrees: float, created_s: float) -> LatentRecord:
    return LatentRecord(entry, "float16", (2,), np.ones(2, "<f2").tobytes(), unit(degrees), created_s)


async def test_restart_finds_what_is_stored(tmp_path: Path) -> None:
    """A new catalogue over the same folder offers the same latents; damaged files are deleted, old ones expire."""
    store = DirectoryStore(tmp_path)
    for key, created_s in ((replace(ENTRY, step=5), 1000.0), (replace(ENTRY, entry_id="old", step=5), 0.0)):
        await store.put(key, encode_record(record(key, 0, created_s)))
    await store.put(replace(ENTRY, entry_id="broken", step=5), b"T2IL rubbish")
    found = await read_store(store)
    books = catalogue()
    assert deleted(books.restore(found, 1010.0)) == [("old", 5, EvictionReason.EXPIRED)]
    assert steps_found(books, now_s=1010.0) == {5}
    assert (books.num_items, len(found)) == (1, 2)
    assert books.used_bytes == found[0][1]
    assert await store.get(replace(ENTRY, entry_id="broken", step=5)) is None
    await store.close()


def test_restart_keeps_to_the_byte_cap_and_to_the_clock() -> None:
    """A folder larger than the cap is cut down; a record from the future (a clock set back) counts as new."""
    books = catalogue(capacity_bytes=100)
    records = [(record(LatentKey("alice", "model", f"e{n}", 5), n, 50.0), 30) for n in range(5)]
    gone = books.restore(records, 10.0)
    assert books.used_bytes <= 100
    assert len(gone) == 2
    assert books.expire(10.0 + TTL_S) == []


def test_restored_embedding_that_fits_no_index_is_left_out() -> None:
    """A record of an embedder of another size is passed over; the others are served."""
    books = catalogue()
    odd = replace(record(replace(ENTRY, entry_id="odd", step=5), 0, 0.0), embedding=np.ones(3, np.float32))
    books.restore([(record(replace(ENTRY, step=5), 0, 0.0), 10), (odd, 10)], 0.0)
    assert (books.num_items, books.used_bytes) == (1, 10)


async def test_deletions_reach_the_store() -> None:
    """What the books gave up is really deleted, and a store that fails costs nobody an error."""
    store, books = MemoryStore(), catalogue()
    await store.put(replace(ENTRY, step=5), b"x")
    books.record_stored(ENTRY, unit(0), [(5, 1)], 0.0)
    for deletion in books.expire(TTL_S + 1):
        await delete_latent(store, deletion.key)
    assert [key async for key, _ in store.scan()] == []
