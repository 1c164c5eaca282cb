"""Books of latents that lie with workers: the union of what they hold, and who holds what."""

import numpy as np
import pytest

from t2i_cache.follow import SpreadFollower
from t2i_cache.index import Vector
from t2i_cache.keys import LatentKey
from t2i_cache.stores import StoreLimits
from t2i_policy.eviction import CachedItem

NOW_S = 1000.0
VECTOR = np.array([1.0, 0.0], np.float32)


def held(*steps: int, entry: str = "e") -> list[tuple[CachedItem[LatentKey], Vector]]:
    keys = [LatentKey("s", "m", entry, step) for step in steps]
    return [(CachedItem(key, key.step, 10, 1, NOW_S, NOW_S), VECTOR) for key in keys]


@pytest.fixture
def reasons() -> list[str]:
    return []


@pytest.fixture
def books(reasons: list[str]) -> SpreadFollower:
    return SpreadFollower(StoreLimits(1 << 20, 100.0), reasons.append)


def steps_found(books: SpreadFollower, now_s: float = NOW_S) -> frozenset[int]:
    found = books.catalogue.nearest("s", "m", VECTOR, now_s)
    return found.steps if found else frozenset()


def test_union_of_workers_is_found_with_who_has_it(books: SpreadFollower) -> None:
    """One worker has two steps, another one of them."""
    books.told("a", held(3, 6))
    books.told("b", held(6))
    assert steps_found(books) == {3, 6}
    expected = {3: frozenset({"a"}), 6: frozenset({"a", "b"})}
    assert books.holdings(LatentKey("s", "m", "e", 0), (3, 6, 9)) == expected


def test_latent_of_one_worker_goes_without_the_others(books: SpreadFollower, reasons: list[str]) -> None:
    """A miss on a worker that has none, or no longer, takes nothing from those that do."""
    books.told("a", held(6))
    books.told("b", held(6))
    key = LatentKey("s", "m", "e", 6)
    for _ in range(2):
        books.taken_back("b", key, "Capacity")
    books.taken_back("never had it", key, "Damaged")
    assert books.holdings(key, (6,)) == {6: frozenset({"a"})}
    assert reasons == ["Capacity"]
    books.taken_back("a", key, "Expired")
    assert steps_found(books) == frozenset()
    assert books.catalogue.num_entries == 0


def test_worker_that_is_lost_takes_what_only_it_had(books: SpreadFollower, reasons: list[str]) -> None:
    """It did not evict anything, so nothing is counted; what it tells anew is back."""
    books.told("a", held(3, 6))
    books.told("b", held(6))
    books.lost("a")
    assert steps_found(books) == {6}
    assert reasons == []
    books.told("a", held(3, 6))
    assert steps_found(books) == {3, 6}


def test_latent_past_its_time_is_passed_over(books: SpreadFollower) -> None:
    """Also before its worker says that it went."""
    books.told("a", held(6))
    assert steps_found(books, NOW_S + 99) == {6}
    assert steps_found(books, NOW_S + 101) == frozenset()


def test_embedding_of_another_size_is_left_out(books: SpreadFollower) -> None:
    """Nothing is promised of an entry that cannot be found."""
    books.told("a", held(6))
    (item, _), *_ = held(6, entry="other")
    books.told("a", [(item, np.ones(3, np.float32))])
    assert books.holdings(item.key, (6,)) == {}
