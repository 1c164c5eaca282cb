"""For every unique prompt its most similar prompts, found once before the simulation starts.

The cosines of unit embeddings are computed in blocks, so that memory stays at `CANDIDATES` a prompt. A lookup walks
these candidates from the most similar one down to the first that is stored. If none is, it compares all stored prompts.
A row of zeros is a prompt that the encoder did not read whole; it is similar to itself alone.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

CANDIDATES = 64
BLOCK = 512
Vectors = npt.NDArray[np.float32]


class PromptSimilarities:
    """`vectors` [prompts, dimension] have length one or zero."""

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = np.ascontiguousarray(vectors, np.float32)
        self._alone: npt.NDArray[np.bool_] = np.abs(self._vectors).max(axis=1) == 0
        count = min(CANDIDATES, len(vectors))
        self._others = np.zeros((len(vectors), count), np.int64)
        self._cosines = np.zeros((len(vectors), count), np.float32)
        for start in range(0, len(vectors), BLOCK):
            cosines = self._vectors[start : start + BLOCK] @ self._vectors.T
            best = np.argpartition(-cosines, count - 1, axis=1)[:, :count]  # faster than sorting all prompts
            values = np.take_along_axis(cosines, best, axis=1)
            order = np.argsort(-values, axis=1, kind="stable")
            self._others[start : start + BLOCK] = np.take_along_axis(best, order, axis=1)
            self._cosines[start : start + BLOCK] = np.take_along_axis(values, order, axis=1)

    def __len__(self) -> int:
        return len(self._vectors)

    def nearest(self, prompt: int, stored: Sequence[int], without: int = -1) -> Iterator[tuple[int, float]]:
        """Yield at most `CANDIDATES` stored prompts with their cosine, the most similar first, but not `without`."""
        if self._alone[prompt]:
            if stored[prompt] and prompt != without:
                yield prompt, 1.0
            return
        found = False
        cosines = self._cosines[prompt].tolist()
        for other, cosine in zip(self._others[prompt].tolist(), cosines, strict=True):
            if stored[other] and other != without and not self._alone[other]:
                found = True
                yield other, min(1.0, cosine)  # rounding may give a cosine above 1
        if not found:
            yield from self._nearest_of_all(prompt, stored, without)

    def _nearest_of_all(self, prompt: int, stored: Sequence[int], without: int) -> Iterator[tuple[int, float]]:
        rows = np.flatnonzero(np.frombuffer(bytes(stored), np.bool_))
        rows = rows[(rows != without) & ~self._alone[rows]]
        if len(rows):
            cosines = self._vectors[rows] @ self._vectors[prompt]
            for place in np.argsort(-cosines, kind="stable")[:CANDIDATES].tolist():
                yield int(rows[place]), min(1.0, float(cosines[place]))
