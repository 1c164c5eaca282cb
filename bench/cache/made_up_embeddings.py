"""Made-up embeddings that are as hard to search as real ones, with a seed.

Real prompts (DiffusionDB's first 4,000 through all-MiniLM-L6-v2) have a mean of length 0.53 and variances along their
main directions that fall like the numbers in `SPECTRUM` (every 16th of 384 is given, the others lie between). Ideas are
drawn with that mean and spectrum; people write some six prompts on an idea, so stored prompts lie in sessions; a
question repeats a stored prompt with a small change, or is a new idea. Uniform vectors would be another problem: all of
them equally far from each other.
"""

import numpy as np
import numpy.typing as npt

DIMENSION = 384
MEAN_LENGTH = 0.53
#: Variance along the 1st, 17th, 33rd ... main direction; measured once on the real prompts.
SPECTRUM = (
    0.04565, 0.00796, 0.00512, 0.00371, 0.00293, 0.00230, 0.00185, 0.00151, 0.00124,
    0.00103, 0.00086, 0.00072, 0.00060, 0.00049, 0.00041, 0.00033, 0.00026, 0.00020,
    0.00015, 0.00011, 0.00008, 0.00006, 0.00005, 0.00003, 0.00000,
)  # fmt: skip
SESSION = 6
CHANGES = (0.05, 0.6)  # sine of the angle between two prompts of a session
Vectors = npt.NDArray[np.float32]


class MadeUpEmbeddings:
    """Draws embeddings; one seed, one order."""

    def __init__(self, seed: int) -> None:
        self._draw = np.random.default_rng(seed)
        places = np.arange(DIMENSION)
        known = np.minimum(16 * np.arange(len(SPECTRUM)), DIMENSION - 1)
        deviations = np.sqrt(np.interp(places, known, SPECTRUM))
        turn, _ = np.linalg.qr(self._draw.standard_normal((DIMENSION, DIMENSION)))
        self._shape = (deviations[:, None] * turn.T).astype(np.float32)
        self._mean = (MEAN_LENGTH * turn[:, 0]).astype(np.float32)

    def ideas(self, count: int) -> Vectors:
        """New ones, [count, 384], of length 1."""
        noise = self._draw.standard_normal((count, DIMENSION), dtype=np.float32)
        return _unit(noise @ self._shape + self._mean)

    def changed(self, prompts: Vectors) -> Vectors:
        sine = self._draw.uniform(*CHANGES, (len(prompts), 1)).astype(np.float32)
        return _unit(np.sqrt(1 - sine**2) * prompts + sine * self.ideas(len(prompts)))

    def stored(self, count: int) -> Vectors:
        """Prompts in sessions."""
        ideas = self.ideas(max(1, count // SESSION))
        return self.changed(ideas[self._draw.integers(len(ideas), size=count)])

    def questions(self, among: npt.NDArray[np.floating], repeating: int, new: int) -> Vectors:
        """Changes of stored prompts, then new ideas."""
        picked = among[self._draw.integers(len(among), size=repeating)].astype(np.float32)
        return np.concatenate([self.changed(picked), self.ideas(new)])


def _unit(vectors: Vectors) -> Vectors:
    found: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found
