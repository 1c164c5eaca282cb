"""Candidates among many rows: faiss's inverted lists over 4-bit codes of the vectors' main directions.

Rows lie in lists by their nearest of some centroids; a question looks at the lists of its nearest ones (IVF; product
quantisation with fast scan, Andre et al., VLDB'15). A code keeps `DIRECTIONS` main directions of the sample at 4 bits
each, so scores are rough: whoever asks scores the candidates again with the vectors themselves. Lists were chosen over
graphs (HNSW). Graphs took many times longer to build, and their recall fell as their content turned over
(docs/decisions, with the figures).

Codes are never taken out: who asks knows which rows still hold what they held, and builds new lists when too many do
not. A row that was written again has a second code and may come up twice.
"""

import logging
import math

logging.getLogger("faiss").setLevel(logging.WARNING)  # it tells at INFO which of its builds it did not find

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402

from t2i_cache.index.rows import Vector  # noqa: E402

DIRECTIONS = 96
CODE_BITS = 4
LISTS_PER_ROOT = 2.0  # lists = this x the root of the rows
MAX_LISTS = 2048
PROBED_SHARE = 0.125  # of the lists are looked at
LEAST_PROBED = 32
SAMPLES_PER_LIST = 40
ROUNDS = 6
SEED = 1


class Lists:
    """Built once from a sample of rows; then rows are added. One thread at a time."""

    def __init__(self, sample: Vector, num_rows: int) -> None:
        """Learn directions and centroids for about `num_rows` rows from unit vectors [n, dimension]."""
        faiss.omp_set_num_threads(1)  # of this thread; the cores belong to requests
        num_lists = min(MAX_LISTS, max(1, int(LISTS_PER_ROOT * math.sqrt(num_rows))), max(1, len(sample) // 2))
        wanted = min(len(sample), SAMPLES_PER_LIST * num_lists)
        picked = sample[np.random.default_rng(SEED).choice(len(sample), wanted, replace=False)]
        self._directions = main_directions(picked, min(DIRECTIONS, sample.shape[1]))
        size = self._directions.shape[1]
        self._coarse = faiss.IndexFlatIP(size)
        self._index = faiss.IndexIVFPQFastScan(
            self._coarse, size, num_lists, size, CODE_BITS, faiss.METRIC_INNER_PRODUCT
        )
        self._index.cp.niter = ROUNDS
        self._index.cp.min_points_per_centroid = 1
        self._index.cp.seed = SEED
        self._index.train(picked @ self._directions)
        self._index.nprobe = max(LEAST_PROBED, round(PROBED_SHARE * num_lists))

    def __len__(self) -> int:
        """Codes, of rows that were written again since too."""
        return int(self._index.ntotal)

    def add(self, rows: npt.NDArray[np.int64], vectors: Vector) -> None:
        self._index.add_with_ids(vectors @ self._directions, rows)

    def candidates(self, unit: Vector, count: int) -> npt.NDArray[np.int64]:
        """Up to `count` different rows that are probably the nearest."""
        _, rows = self._index.search((unit @ self._directions)[None], count)
        found: npt.NDArray[np.int64] = np.unique(rows[0])
        return found[found >= 0]

    @property
    def nbytes(self) -> int:
        """Memory of codes and row numbers, about."""
        centroids = int(self._coarse.ntotal) * 4 * int(self._coarse.d)
        return centroids + len(self) * (int(self._directions.shape[1]) * CODE_BITS // 8 + 8)


def main_directions(sample: Vector, count: int) -> Vector:
    """Orthonormal [dimension, count]: where the sample's length lies."""
    _, vectors = np.linalg.eigh(sample.T.astype(np.float64) @ sample)
    found: Vector = np.ascontiguousarray(vectors[:, ::-1][:, :count], np.float32)
    return found
