"""Nearest cached prompts by cosine: exact search over one float32 matrix.

One index per (scope, model): a lookup never sees another tenant's rows. Exact and in memory up to some 10^5 entries
(10^4 x 128 in well under a millisecond); an approximate index can take its place behind the same three methods.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
FREE_PENALTY = -4.0  # added to the cosine of a free row, so that it ranks below every live one


@dataclass(frozen=True, slots=True)
class Match:
    """An entry and its cosine to the question, in [-1, 1]."""

    entry_id: str
    similarity: float


class PromptIndex:
    """Rows are reused after removal; capacity doubles. Single writer."""

    def __init__(self, dimension: int) -> None:
        self._rows: Vector = np.zeros((64, dimension), np.float32)
        self._penalty: Vector = np.full(64, FREE_PENALTY, np.float32)
        self._ids: list[str | None] = [None] * 64
        self._row_of: dict[str, int] = {}
        self._free = list(range(63, -1, -1))

    def __len__(self) -> int:
        return len(self._row_of)

    def add(self, entry_id: str, embedding: Vector) -> None:
        """Insert or replace.

        Raises:
            ValueError: another dimension, not finite, or all zeros.
        """
        unit = self._unit(embedding)
        row = self._row_of.get(entry_id)
        if row is None:
            row = self._take_row()
            self._row_of[entry_id] = row
            self._ids[row] = entry_id
        self._rows[row] = unit
        self._penalty[row] = 0.0

    def remove(self, entry_id: str) -> None:
        """Forget an entry; missing is fine."""
        row = self._row_of.pop(entry_id, None)
        if row is not None:
            self._rows[row] = 0.0
            self._penalty[row] = FREE_PENALTY
            self._ids[row] = None
            self._free.append(row)

    def nearest(self, embedding: Vector, count: int) -> list[Match]:
        """Up to `count` entries, most similar first."""
        if not self._row_of:
            return []
        similarity = self._rows @ self._unit(embedding) + self._penalty
        taken = min(count, len(self._row_of))
        best = np.argpartition(-similarity, taken - 1)[:taken]
        best = best[np.argsort(-similarity[best], kind="stable")]
        found = [(self._ids[row], float(similarity[row])) for row in best.tolist()]
        return [Match(name, min(1.0, value)) for name, value in found if name is not None]

    def _unit(self, embedding: Vector) -> Vector:
        vector = np.asarray(embedding, np.float32)
        if vector.shape != (self._rows.shape[1],):
            raise ValueError(f"embedding has shape {vector.shape}, the index holds {self._rows.shape[1]} values")
        length = float(np.linalg.norm(vector))
        if not np.isfinite(length) or length == 0.0:
            raise ValueError("embedding must be finite and not all zeros")
        return vector / np.float32(length)

    def _take_row(self) -> int:
        if not self._free:
            size = len(self._ids)
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._penalty = np.concatenate([self._penalty, np.full(size, FREE_PENALTY, np.float32)])
            self._ids.extend([None] * size)
            self._free = list(range(2 * size - 1, size - 1, -1))
        return self._free.pop()
