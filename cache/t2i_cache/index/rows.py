"""Unit vectors by row, in chunks that never move; free rows are reused. Float32, or float16 to halve the memory."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
CHUNK = 4096
FREE_PENALTY = -4.0  # added to the cosine of a free row, so that it ranks below every live one
_FIRST = 64  # a small shelf (one of many tenants') starts small and doubles up to a chunk


class Rows:
    """Single writer."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.half = False
        self._chunks: list[npt.NDArray[np.floating]] = []
        self._penalty: Vector = np.zeros(0, np.float32)
        self._free: list[int] = []

    def take(self) -> int:
        if not self._free:
            self._grow()
        return self._free.pop()

    def write(self, row: int, unit: Vector) -> None:
        self._chunks[row // CHUNK][row % CHUNK] = unit
        self._penalty[row] = 0.0

    def give_back(self, row: int) -> None:
        self._penalty[row] = FREE_PENALTY
        self._free.append(row)

    def read(self, rows: npt.NDArray[np.int64]) -> Vector:
        """Float32 [n, dimension] of these rows."""
        if not len(rows):
            return np.zeros((0, self.dimension), np.float32)
        parts = rows // CHUNK
        if (parts == parts[0]).all():
            return self._chunks[int(parts[0])][rows % CHUNK].astype(np.float32)
        picked = [self._chunks[row // CHUNK][row % CHUNK] for row in rows.tolist()]
        return np.asarray(picked, np.float32)

    def similarities(self, unit: Vector) -> Vector:
        """Cosine of every row with a unit vector; far below -1 where a row is free."""
        scores = [np.asarray(chunk, np.float32) @ unit for chunk in self._chunks]
        found: Vector = (scores[0] if len(scores) == 1 else np.concatenate(scores)) + self._penalty
        return found

    def halve(self) -> None:
        """From now on float16: exact search over all rows is no longer what they are for."""
        self.half = True
        self._chunks = [chunk.astype(np.float16) for chunk in self._chunks]

    @property
    def nbytes(self) -> int:
        return sum(chunk.nbytes for chunk in self._chunks) + self._penalty.nbytes

    def _grow(self) -> None:
        kind = np.float16 if self.half else np.float32
        before = len(self._penalty)
        last = len(self._chunks[-1]) if self._chunks else 0
        if self._chunks and last < CHUNK:
            size = 2 * last
            chunk = np.zeros((size, self.dimension), kind)
            chunk[:last] = self._chunks[-1]
            self._chunks[-1] = chunk
            added = size - last
        else:
            added = CHUNK if self._chunks else _FIRST
            self._chunks.append(np.zeros((added, self.dimension), kind))
        self._penalty = np.concatenate([self._penalty, np.full(added, FREE_PENALTY, np.float32)])
        self._free.extend(range(before + added - 1, before - 1, -1))


def units(embeddings: Vector, dimension: int) -> Vector:
    """Rows of length 1 from [n, dimension].

    Raises:
        ValueError: another dimension, not finite, or all zeros.
    """
    vectors = np.asarray(embeddings, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(f"embedding has shape {vectors.shape[1:]}, the index holds {dimension} values")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise ValueError("embedding must be finite and not all zeros")
    scaled: Vector = vectors / lengths.astype(np.float32)
    return scaled


def unit_of(embedding: Vector, dimension: int) -> Vector:
    """One vector [dimension] of length 1; every request asks, so it does not take the way of many.

    Raises:
        ValueError: as `units`.
    """
    vector = np.asarray(embedding, np.float32)
    if vector.shape != (dimension,):
        units(vector[None], dimension)  # says what is wrong with it
    length = math.sqrt(vector.dot(vector))
    if not 0 < length < math.inf:
        raise ValueError("embedding must be finite and not all zeros")
    scaled: Vector = vector / np.float32(length)
    return scaled


def as_rows(rows: Sequence[int]) -> npt.NDArray[np.int64]:
    """Row numbers as faiss and numpy want them."""
    return np.asarray(rows, np.int64)
