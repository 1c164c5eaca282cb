"""Nearest cached prompts by cosine.

One index per (scope, model): a lookup never sees another tenant's rows. Up to `EXACT_UP_TO` entries every row is
compared (about a millisecond at most); beyond, candidates come from `lists` and are scored with their own vectors.

Lists are built aside, in another thread, while this index goes on serving: `snapshot()` copies what is there, and
`Snapshot.build()` takes its time. `adopt()` swaps the result in with what changed meanwhile. New lists are due when the
index has outgrown them fourfold. They are also due when a third of their codes is of entries that have gone. Single
writer.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from t2i_cache.index.lists import Lists
from t2i_cache.index.rows import Rows, Vector, as_rows, unit_of, units

EXACT_UP_TO = 8192
OUTGROWN = 4.0  # times the rows that the lists were made for
CODES_PER_ENTRY = 1.5  # in the lists, at most: the rest is of entries that have gone
RESCORED = 96  # candidates whose true cosine is computed
SAMPLE = 200_000
BULK = 20_000


@dataclass(frozen=True, slots=True)
class Match:
    """An entry and its cosine to the question, in [-1, 1]."""

    entry_id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows of one moment."""

    rows: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float16]

    def build(self) -> Lists:
        """The lists of these rows; takes seconds, touches nothing else."""
        picked = np.random.default_rng(1).permutation(len(self.rows))[:SAMPLE]
        lists = Lists(self.vectors[picked].astype(np.float32), len(self.rows))
        for start in range(0, len(self.rows), BULK):
            part = slice(start, start + BULK)
            lists.add(self.rows[part], self.vectors[part].astype(np.float32))
        return lists


def _likeness(scored: tuple[int, float]) -> float:
    return scored[1]


class PromptIndex:
    """Rows are reused after removal."""

    def __init__(self, dimension: int) -> None:
        self._rows = Rows(dimension)
        self._ids: list[str | None] = []
        self._row_of: dict[str, int] = {}
        self._lists: Lists | None = None
        self._built_for = 0
        self._changed: dict[int, None] | None = None  # rows that changed since the snapshot, while lists are built

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._row_of

    def add(self, entry_id: str, embedding: Vector) -> None:
        """Insert or replace.

        Raises:
            ValueError: another dimension, not finite, or all zeros.
        """
        self.extend([entry_id], np.asarray(embedding, np.float32)[None])

    def extend(self, entry_ids: Sequence[str], embeddings: Vector) -> None:
        """Insert or replace many, [n, dimension]; an id that comes twice keeps the last.

        Raises:
            ValueError: as `add`; then none is in.
        """
        vectors = units(embeddings, self._rows.dimension)
        last = {entry_id: place for place, entry_id in enumerate(entry_ids)}
        rows = []
        for entry_id, place in last.items():
            self.remove(entry_id)
            row = self._rows.take()
            self._rows.write(row, vectors[place])
            self._name(row, entry_id)
            rows.append(row)
        self._note(rows)
        if self._lists is not None:
            self._lists.add(as_rows(rows), vectors[list(last.values())])

    def remove(self, entry_id: str) -> None:
        """Forget an entry; missing is fine."""
        row = self._row_of.pop(entry_id, None)
        if row is None:
            return
        self._rows.give_back(row)
        self._ids[row] = None
        self._note([row])

    def nearest(self, embedding: Vector, count: int) -> list[Match]:
        """Up to `count` entries, most similar first."""
        unit = unit_of(embedding, self._rows.dimension)
        taken = min(count, len(self._row_of))
        if not taken:
            return []
        rows, similarity = self._scored(unit, taken)
        found = sorted(zip(rows.tolist(), similarity.tolist(), strict=True), key=_likeness, reverse=True)[:taken]
        named = [(self._ids[row], value) for row, value in found]
        return [Match(name, max(-1.0, min(1.0, value))) for name, value in named if name is not None]

    def _scored(self, unit: Vector, taken: int) -> tuple[npt.NDArray[np.int64], Vector]:
        """Rows that hold the nearest, with their cosines."""
        if self._lists is None:
            similarity = self._rows.similarities(unit)
            rows = (-similarity).argpartition(taken - 1)[:taken]
            return rows, similarity[rows]
        rows = self._lists.candidates(unit, max(RESCORED, taken))
        rows = as_rows([row for row in rows.tolist() if self._ids[row] is not None])
        return rows, self._rows.read(rows) @ unit

    def sample(self, most: int, draw: random.Random) -> list[str]:
        """Up to about `most` entries drawn evenly (all, if there are no more)."""
        if most >= len(self):
            return list(self._row_of)
        wanted = most * len(self._ids) // max(1, len(self))  # some of the rows are free
        picked = draw.sample(range(len(self._ids)), min(wanted, len(self._ids)))
        return [name for row in picked if (name := self._ids[row]) is not None]

    @property
    def wants_lists(self) -> bool:
        """Whether lists are due, and none are being built."""
        if self._changed is not None or len(self) <= EXACT_UP_TO:
            return False
        if self._lists is None or len(self) > OUTGROWN * self._built_for:
            return True
        return len(self._lists) > CODES_PER_ENTRY * len(self)

    def snapshot(self) -> Snapshot:
        """Copy what is here, and from now on remember what changes; `adopt` or `give_up` must follow."""
        self._changed = {}
        rows = as_rows(list(self._row_of.values()))
        parts = [self._rows.read(rows[at : at + BULK]).astype(np.float16) for at in range(0, len(rows), BULK)]
        return Snapshot(rows, np.concatenate(parts))

    def adopt(self, lists: Lists) -> None:
        """Swap in lists built from our last snapshot."""
        changed = as_rows(list(self._changed or ()))
        live = as_rows([row for row in changed.tolist() if self._ids[row] is not None])
        if len(live):
            lists.add(live, self._rows.read(live))
        self._lists, self._built_for, self._changed = lists, len(self), None
        if not self._rows.half:
            self._rows.halve()

    def give_up(self) -> None:
        """Lists could not be built; go on as before."""
        self._changed = None

    @property
    def nbytes(self) -> int:
        """Memory of vectors, lists and names, about."""
        names = len(self._row_of) * (81 + 8 + 100)  # a text of 32 characters, its place in a list and in a mapping
        return self._rows.nbytes + names + (self._lists.nbytes if self._lists is not None else 0)

    def _name(self, row: int, entry_id: str) -> None:
        if row >= len(self._ids):
            self._ids.extend([None] * (row + 1 - len(self._ids)))
        self._ids[row] = entry_id
        self._row_of[entry_id] = row

    def _note(self, rows: Sequence[int]) -> None:
        if self._changed is not None:
            self._changed.update(dict.fromkeys(rows))


__all__ = ["EXACT_UP_TO", "Match", "PromptIndex", "Snapshot", "Vector"]
