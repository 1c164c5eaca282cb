"""Probes: ridge regressions, plain or with a Gaussian kernel, fitted to some blocks and judged by others."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.kit.caption_runs import Floats
from bench.starts.compared import MeanWithError

PENALTIES = tuple(10.0**power for power in range(-3, 4))
RESAMPLES = 400
TINY = 1e-9
Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class FittedProbe:
    """Features are brought to mean 0 and spread 1, and each group of them counts the same."""

    centre: Floats
    scale: Floats
    known: Floats
    gaussian: bool
    weights: Floats  # [n,m], of the fitted images' kernel
    offset: Floats

    @classmethod
    def fit(cls, groups: Sequence[Floats], targets: Floats) -> "FittedProbe":
        """Groups [n,k], targets [n,m]. Kernel and penalty are those of the least error when an image is left out."""
        widths = np.concatenate([np.full(one.shape[1], np.sqrt(one.shape[1] * len(groups))) for one in groups])
        features = np.concatenate(groups, 1)
        centre, scale = features.mean(0), (features.std(0) + TINY) * widths
        known, offset = (features - centre) / scale, targets.mean(0)
        best: tuple[float, bool, Floats] | None = None
        for gaussian in (False, True):
            values, vectors = np.linalg.eigh(_kernel(known, known, gaussian))
            for penalty in PENALTIES:
                inverse = (vectors / (np.maximum(values, 0) + penalty)) @ vectors.T
                weights = inverse @ (targets - offset)
                kept = np.maximum(penalty * np.diag(inverse) - 1 / len(known), TINY)  # 1/n: the mean is fitted too
                left_out = float(((penalty * weights / kept[:, None]) ** 2 / (targets.var(0) + TINY)).mean())
                if best is None or left_out < best[0]:
                    best = left_out, gaussian, weights
        assert best is not None
        return cls(centre, scale, known, best[1], best[2], offset)

    def predict(self, groups: Sequence[Floats]) -> Floats:
        features = (np.concatenate(groups, 1) - self.centre) / self.scale
        found: Floats = self.offset + _kernel(features, self.known, self.gaussian) @ self.weights
        return found


def _kernel(one: Floats, other: Floats, gaussian: bool) -> Floats:
    inner: Floats = one @ other.T
    if not gaussian:
        return inner
    lengths = [(values**2).sum(1) for values in (one, other)]
    apart: Floats = np.exp(-0.5 * (lengths[0][:, None] + lengths[1] - 2 * inner))
    return apart


def held_out(groups: Sequence[Floats], targets: Floats, folds: Numbers) -> Floats:
    """Predictions [n,m], each by a probe that was fitted to the images of other folds."""
    found = np.zeros_like(targets)
    for fold in np.unique(folds):
        inside = folds == fold
        probe = FittedProbe.fit([one[~inside] for one in groups], targets[~inside])
        found[inside] = probe.predict([one[inside] for one in groups])
    return found


def explained(actual: Floats, predicted: Floats) -> float:
    """Share of the variance."""
    return float(1 - ((actual - predicted) ** 2).sum() / max(((actual - actual.mean()) ** 2).sum(), 1e-9))


def area_under_curve(is_so: Floats, predicted: Floats) -> float:
    """How often one that is so is ranked above one that is not; 0.5 is chance, NaN if all are alike."""
    positive, negative = predicted[is_so > 0], predicted[is_so == 0]
    if not len(positive) or not len(negative):
        return float("nan")
    differences = positive[:, None] - negative[None, :]
    return float(((differences > 0) + 0.5 * (differences == 0)).mean())


def with_error(measure: Any, actual: Floats, predicted: Floats) -> MeanWithError:
    """Its standard error by drawing images anew."""
    rng = np.random.default_rng(5)
    drawn: Sequence[float] = [
        measure(actual[places], predicted[places])
        for places in (rng.integers(len(actual), size=len(actual)) for _ in range(RESAMPLES))
    ]
    return MeanWithError(measure(actual, predicted), float(np.nanstd(drawn, ddof=1)))
