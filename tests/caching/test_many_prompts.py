"""The index beyond exact search: lists built aside, nearly exact answers, nothing lost while they are built."""

import numpy as np
import pytest

from t2i_cache.index import EXACT_UP_TO, PromptIndex, Vector

DIMENSION = 32
COUNT = EXACT_UP_TO + 500


def rows(count: int, seed: int = 3) -> Vector:
    """Unit vectors in sessions of a few, as prompts come."""
    draw = np.random.default_rng(seed)
    ideas = draw.normal(size=(count // 6 + 1, DIMENSION))
    vectors = ideas[draw.integers(len(ideas), size=count)] + 0.4 * draw.normal(size=(count, DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def near(vectors: Vector) -> Vector:
    noise = np.random.default_rng(5).normal(size=vectors.shape).astype(np.float32)
    return vectors + 0.05 * noise


def names(count: int, start: int = 0) -> list[str]:
    return [f"e{number}" for number in range(start, start + count)]


def with_lists(vectors: Vector) -> PromptIndex:
    index = PromptIndex(DIMENSION)
    index.extend(names(len(vectors)), vectors)
    index.adopt(index.snapshot().build())
    return index


def recall(index: PromptIndex, held: dict[str, Vector], questions: Vector) -> float:
    """Share of questions whose first answer is the truly nearest."""
    keys, matrix = list(held), np.stack(list(held.values()))
    right = [
        keys[int(np.argmax(matrix @ question))] == index.nearest(question, 1)[0].entry_id for question in questions
    ]
    return float(np.mean(right))


@pytest.fixture(scope="module")
def vectors() -> Vector:
    return rows(COUNT)


def test_lists_are_wanted_only_beyond_exact_search(vectors: Vector) -> None:
    """A small shelf never pays for them; a large one asks until they are there, and not while they are built."""
    index = PromptIndex(DIMENSION)
    index.extend(names(EXACT_UP_TO), vectors[:EXACT_UP_TO])
    assert not index.wants_lists
    index.add("one more", vectors[-1])
    assert index.wants_lists
    snapshot = index.snapshot()
    assert not index.wants_lists
    index.adopt(snapshot.build())
    assert not index.wants_lists


def test_nearest_is_nearly_always_found_with_its_true_similarity(vectors: Vector) -> None:
    """Recall at least 0.97, and cosines as good as exact ones: levels are decided by them."""
    index = with_lists(vectors)
    picked = vectors[::40]
    assert recall(index, dict(zip(names(COUNT), vectors, strict=True)), near(picked)) >= 0.97
    match = index.nearest(vectors[7], 3)[0]
    assert (match.entry_id, match.similarity) == ("e7", pytest.approx(1.0, abs=1e-3))


def test_removed_entries_never_come_back(vectors: Vector) -> None:
    """Their codes stay in the lists; they are no answer, also when their row was given to another prompt."""
    index = with_lists(vectors)
    index.remove("e7")
    assert index.nearest(vectors[7], 1)[0].entry_id != "e7"
    index.add("new", -vectors[7])
    assert "new" not in {match.entry_id for match in index.nearest(vectors[7], 5)}
    assert index.nearest(-vectors[7], 1)[0].entry_id == "new"


def test_what_changes_while_lists_are_built_is_in_them(vectors: Vector) -> None:
    """Added, replaced and removed after the snapshot: as if the lists had been built after it."""
    index = PromptIndex(DIMENSION)
    index.extend(names(COUNT), vectors)
    snapshot = index.snapshot()
    index.remove("e1")
    index.add("e2", -vectors[2])
    index.add("late", -vectors[3])
    index.adopt(snapshot.build())
    assert index.nearest(vectors[1], 1)[0].entry_id != "e1"
    assert index.nearest(-vectors[2], 1)[0].entry_id == "e2"
    assert index.nearest(-vectors[3], 1)[0].entry_id == "late"


def test_turnover_asks_for_new_lists_and_recall_is_kept(vectors: Vector) -> None:
    """After twice its content came and went, with new lists when they are wanted, the nearest is still found."""
    index, held = with_lists(vectors), dict(zip(names(COUNT), vectors, strict=True))
    built = 0
    for turn in (1, 2):
        fresh = rows(COUNT, seed=10 + turn)
        for start in range(0, COUNT, 1000):
            for name in names(min(1000, COUNT - start), (turn - 1) * COUNT + start):
                index.remove(name)
                held.pop(name)
            added = names(min(1000, COUNT - start), turn * COUNT + start)
            index.extend(added, fresh[start : start + 1000])
            held.update(zip(added, fresh[start : start + 1000], strict=True))
            if index.wants_lists:
                index.adopt(index.snapshot().build())
                built += 1
    assert 2 <= built <= 6
    assert len(index) == COUNT
    assert recall(index, held, near(fresh[::40])) >= 0.97
