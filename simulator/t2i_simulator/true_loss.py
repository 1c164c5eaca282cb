"""The true loss of a served image. Decisions never see it: they believe the bounds of the profile.

    true loss = min(1, scale x mean(level, similarity) x exp(spread z - spread^2 / 2) + repeated x diversity(level))
    z: standard normal, from a hash of (seed, prompt, level)
    repeated: 1 for a prompt that was asked before; diversity: the profile's mean

Both means are linear between the centres of the profile's similarity bands. So two prompts of one band differ as their
similarities do. The factor has mean 1, so over many prompts the truth is what the profile says. `spread` is assumed: at
0.5 two prompts in three lie within x 0.54 to 1.45. `scale` makes the profile wrong on purpose. z depends on its
arguments alone, so a prompt loses the same at a level under every policy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import numpy.typing as npt

from t2i_policy.level import Level
from t2i_policy.profile import BandLoss, LevelProfile

SPREAD = 0.5  # of the factor's logarithm

Floats = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Truth:
    profile: LevelProfile
    seed: int = 0
    spread: float = SPREAD
    scale: float = 1.0

    def losses(
        self, level: Level, similarity: Floats, prompts: npt.NDArray[np.int64], repeated: npt.NDArray[np.bool_]
    ) -> Floats:
        """True losses at one level. `prompts` are numbers; `similarity` is to the prompt that the run started from."""
        if level == Level(0, self.profile.base_steps):
            return np.zeros(len(similarity))  # the exact level defines no loss
        bands = sorted(self.profile.bands.get(level, ()), key=lambda b: b.similarity_min)
        if not bands:  # a level that was not measured loses everything
            return np.ones(len(similarity))
        mean = _between_bands(bands, [band.mean_loss for band in bands], similarity)
        diversity = _between_bands(bands, [band.diversity_bound(0.0) for band in bands], similarity)
        factor = np.exp(self.spread * _normals(self.seed, level, prompts) - self.spread**2 / 2)
        return np.minimum(1.0, self.scale * np.maximum(0.0, mean) * factor + diversity * repeated)


def discriminator(truth: Truth, prompt_of: Sequence[int], error: float = 0.0) -> Callable[[int, Level], float]:
    """What a cascade sees of the image of a request: its true loss, times a log-normal error of its own."""

    def seen(request: int, level: Level) -> float:
        prompt, errs = np.array([prompt_of[request]]), np.array([request])
        loss = truth.losses(level, np.zeros(1), prompt, np.zeros(1, np.bool_))
        return float((loss * np.exp(error * _normals(truth.seed + 1, level, errs)))[0])

    return seen


def _between_bands(ordered: Sequence[BandLoss], values: Sequence[float], similarity: Floats) -> Floats:
    """Linear between the centres of the bands, flat beyond the first and the last."""
    centres = [(band.similarity_min + min(band.similarity_max, 1.0)) / 2 for band in ordered]
    if len(ordered) > 1:  # the lowest band is open below, and most of its prompts lie near its upper end
        centres[0] = ordered[0].similarity_max - (centres[1] - ordered[1].similarity_min)
    return np.interp(similarity, centres, values)


def _normals(seed: int, level: Level, prompts: npt.NDArray[np.int64]) -> Floats:
    key = (seed * 1_000_003 + level.skipped_steps) * 1_000_003 + level.num_inference_steps
    key ^= crc32("+".join(level.marks).encode()) ^ crc32(level.model.encode())
    first = _mix(prompts.astype(np.uint64) ^ np.uint64(key * 0x9E3779B97F4A7C15 % 2**64))
    second = _mix(first)
    radius = np.sqrt(-2 * np.log(1 - _uniforms(first)))  # Box-Muller transform
    return np.asarray(radius * np.cos(2 * np.pi * _uniforms(second)), np.float64)


def _uniforms(hashes: Hashes) -> Floats:
    return (hashes >> np.uint64(11)).astype(np.float64) / 2**53


def _mix(values: Hashes) -> Hashes:
    """SplitMix64 (Steele, Lea, Flood 2014)."""
    mixed = values + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
