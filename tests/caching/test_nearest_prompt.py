"""The index: exact nearest neighbours by cosine, whatever was added, replaced and removed before."""

from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_cache.index import PromptIndex, Vector

DIMENSION = 4
# Small whole numbers: ties, repeated and opposite vectors come up often.
vectors = st.lists(st.integers(-3, 3), min_size=DIMENSION, max_size=DIMENSION).filter(any)


def as_vector(values: list[int]) -> Vector:
    return np.array(values, np.float32)


def random_vectors(count: int, dimension: int = 16) -> Vector:
    return np.random.default_rng(7).normal(size=(count, dimension)).astype(np.float32)


def cosine(one: Vector, other: Vector) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def check_against_brute_force(index: PromptIndex, held: dict[str, Vector], question: Vector, count: int) -> None:
    """Right number, each similarity right for its entry, the best ones in order; ties may come in any order."""
    found = index.nearest(question, count)
    truth = {name: cosine(vector, question) for name, vector in held.items()}
    assert len({match.entry_id for match in found}) == len(found) == min(count, len(held))
    assert [match.similarity for match in found] == pytest.approx([truth[match.entry_id] for match in found], abs=1e-5)
    best = sorted(truth.values(), reverse=True)[:count]
    assert [match.similarity for match in found] == pytest.approx(best, abs=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.none() | vectors), max_size=30),
    question=vectors,
    count=st.integers(0, 10),
)
def test_equals_brute_force(changes: list[tuple[str, list[int] | None]], question: list[int], count: int) -> None:
    """After any adds, replacements and removals the answer is that of comparing with every entry."""
    index, held = PromptIndex(DIMENSION), dict[str, Vector]()
    for name, values in changes:
        if values is None:
            index.remove(name)
            held.pop(name, None)
        else:
            index.add(name, as_vector(values))
            held[name] = as_vector(values)
    assert len(index) == len(held)
    check_against_brute_force(index, held, as_vector(question), count)


@pytest.mark.parametrize("count", [64, 65, 200])
def test_growth_keeps_entries(count: int) -> None:
    """Entries survive every doubling of the matrix, and the new rows are found."""
    rows, index = random_vectors(count), PromptIndex(16)
    held = {f"e{i}": row for i, row in enumerate(rows)}
    for name, row in held.items():
        index.add(name, row)
    assert len(index) == count
    assert all(index.nearest(row, 1)[0].entry_id == name for name, row in held.items())
    check_against_brute_force(index, held, rows[0] - rows[1], 5)


def test_rows_are_reused_after_growth() -> None:
    """Removing and adding 300 times holds 70 entries, finds only those, and never a removed one."""
    rows, index = random_vectors(370), PromptIndex(16)
    for i, row in enumerate(rows):
        index.add(f"e{i}", row)
        if i >= 70:
            index.remove(f"e{i - 70}")
    held = {f"e{i}": rows[i] for i in range(300, 370)}
    assert len(index) == 70
    check_against_brute_force(index, held, rows[0], 100)


def test_entries_opposite_to_question_are_found() -> None:
    """Free rows score 0, above any negative cosine; they must not crowd entries out."""
    index = PromptIndex(2)
    index.add("opposite", np.array([-1, 0], np.float32))
    index.add("worse than square", np.array([-1, 5], np.float32))
    found = index.nearest(np.array([1, 0], np.float32), 4)
    assert [match.entry_id for match in found] == ["worse than square", "opposite"]
    assert found[1].similarity == pytest.approx(-1)


def test_length_does_not_count() -> None:
    """Only the direction matters, and an identical prompt never scores above 1."""
    index = PromptIndex(16)
    for row in random_vectors(50):
        index.add("only", row * 1000)
        assert 0.9999 < index.nearest(row / 1000, 1)[0].similarity <= 1.0


def test_vector_is_copied() -> None:
    """A caller that reuses its buffer does not move the entry."""
    index, buffer = PromptIndex(2), np.array([1, 0], np.float32)
    index.add("a", buffer)
    buffer[:] = [0, 1]
    assert index.nearest(np.array([1, 0], np.float32), 1)[0].similarity == pytest.approx(1)


def test_removing_unknown_entry_is_fine() -> None:
    """Twice removed, never added: nothing happens, and an empty index answers with nothing."""
    index = PromptIndex(2)
    index.add("a", np.array([1, 0], np.float32))
    for name in ("a", "a", "never"):
        index.remove(name)
    assert len(index) == 0
    assert index.nearest(np.array([1, 0], np.float32), 3) == []


@pytest.mark.parametrize(
    "bad",
    {
        "all zeros": [0, 0],
        "NaN": [1, nan],
        "infinity": [inf, 1],
        "minus infinity": [1, -inf],
        "too short": [1],
        "too long": [1, 2, 3],
        "a matrix": [[1, 2]],
        "empty": [],
    }.items(),
    ids=lambda item: item[0],
)
def test_bad_embedding_is_refused(bad: tuple[str, Any]) -> None:
    """A ValueError for entry and question alike, and what was held stays as it was."""
    index = PromptIndex(2)
    index.add("a", np.array([3, 4], np.float32))
    for name in ("a", "new"):
        with pytest.raises(ValueError, match="embedding"):
            index.add(name, np.array(bad[1], np.float32))
    with pytest.raises(ValueError, match="embedding"):
        index.nearest(np.array(bad[1], np.float32), 1)
    assert len(index) == 1
    assert index.nearest(np.array([3, 4], np.float32), 2)[0].similarity == pytest.approx(1)
