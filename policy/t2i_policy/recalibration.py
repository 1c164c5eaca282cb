"""Recalibration: recent audits say what corrections the profile's losses need.

Decided from audits, by level and band of similarity, and the corrections in force; the outcome is the next revision of
these, or none. A residual is what an image lost beyond what the profile alone promised. So the corrections that were in
force then play no part. Few audits say little of a band, so each mean is drawn towards the wider one:

    shift(all)   = n / (n + PRIOR) * mean residual
    shift(level) = shift(all)   + n_level / (n_level + PRIOR) * (mean of the level - shift(all))
    shift(band)  = shift(level) + n_band  / (n_band  + PRIOR) * (mean of the band  - shift(level))

These are the means of a normal model with a prior worth PRIOR audits for each of the three (James and Stein 1961;
Gelman et al., Bayesian Data Analysis, ch. 5). An image that loses more than was promised is worse than one that loses
less. So a promise falls only as far as the upper end of one standard error bears. Only audits of the band's own let it
fall: a wider mean below 0 counts as 0.

Prompts may change at once. At the best cut, residuals of newer audits may lie apart from those of older ones by CHANGED
standard errors. Then the older ones say nothing of what comes, and are left out (a two-sample change point, Hawkins
1977). The limit is high, as many cuts are tried.

It must never change a promise by more than MOST_CHANGE in one revision. Nor may it make a revision out of fewer than
LEAST_AUDITS new audits: the gateways' next audits are to show what the last revision did.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import Any

import numpy as np

from t2i_policy.audits import Audit, BandOf, by_band, lost
from t2i_policy.corrections import MOST_ADDED, Correction, Corrections
from t2i_policy.kept_promise import FEWEST_AUDITS
from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile

Floats = np.ndarray[Any, np.dtype[np.float64]]
WINDOW = 400  # recent audits that are looked at
PRIOR = 16  # audits that the wider mean is worth
LEAST_AUDITS = 20  # new ones between two revisions
MOST_CHANGE = 0.03  # of exact, in one revision
WORTH_TELLING = 0.0025  # of exact: a quarter of a point; smaller changes make no revision
CHANGED = 4.0  # standard errors between older and newer audits
LEAST_ERROR = 1e-4  # of exact: judges that repeat themselves leave none
CUT_EVERY = 10  # audits
UNKNOWN_SPREAD = 1.0  # of residuals, where a single audit tells nothing of it


@dataclass(frozen=True, slots=True)
class Shift:
    """By how much images of a group lose more than the profile promised, and one standard error of that."""

    loss: float
    error: float

    @property
    def safe(self) -> float:
        """What a promise may be changed by: all of a rise, of a fall only what one standard error leaves."""
        return self.loss if self.loss >= 0 else min(0.0, self.loss + self.error)


def recalibrate(
    audits: Sequence[Audit], in_force: Corrections, profile: LevelProfile, num_new: int, judge: str = ""
) -> Corrections | None:
    """The next corrections, by recent `audits`, of which `num_new` came since the last revision; None: these stay."""
    if num_new < LEAST_AUDITS or not audits:
        return None
    audits = since_change(audits)
    shifts = band_shifts(audits, profile)
    wanted = {band: min(MOST_ADDED, max(-MOST_ADDED, shift.safe)) for band, shift in shifts.items()}
    changed = {band: _towards(in_force.of(*band), added) for band, added in wanted.items()}
    counts = Counter(one.band for one in audits)
    most = max(changed, key=lambda band: (abs(changed[band] - in_force.of(*band)), counts[band]))
    change = changed[most] - in_force.of(*most)
    if abs(change) < WORTH_TELLING:
        return None
    corrections = tuple(Correction(*band, added) for band, added in sorted(changed.items()) if added)
    reason = _sentence(most, change, len(audits), profile)
    return Corrections(in_force.revision + 1, corrections, profile.losses_digest, judge, reason)


def since_change(audits: Sequence[Audit]) -> Sequence[Audit]:
    """Those since the last change of what is lost; all, if there was none."""
    if len(audits) < LEAST_AUDITS + FEWEST_AUDITS:
        return audits
    residuals = np.array(_residuals(audits))
    cuts = range(LEAST_AUDITS, len(audits) - FEWEST_AUDITS + 1, CUT_EVERY)  # what is left can be judged
    apart = [_distance(residuals[:cut], residuals[cut:]) for cut in cuts]
    best = int(np.argmax(apart))
    return audits[cuts[best] :] if apart[best] > CHANGED else audits


def _distance(older: Floats, newer: Floats) -> float:
    """Of the means, in standard errors."""
    error = sqrt(older.var(ddof=1) / len(older) + newer.var(ddof=1) / len(newer))
    return float(abs(newer.mean() - older.mean())) / max(error, LEAST_ERROR)


def band_shifts(audits: Sequence[Audit], profile: LevelProfile) -> dict[BandOf, Shift]:
    """Of every band of the profile, also those without audits."""
    bands = {band: _residuals(inside) for band, inside in by_band(audits).items()}

    def of(level: Level | None) -> list[float]:
        return [one for band, inside in bands.items() if level in (None, band.level) for one in inside]

    whole = _drawn(Shift(0.0, 0.0), of(None))
    levels: dict[Level, Shift] = {}
    found: dict[BandOf, Shift] = {}
    for measured in profile.losses:
        level = measured.level
        if level not in levels:
            levels[level] = _drawn(whole, of(level))
        place = BandOf(level, measured.similarity_min)
        found[place] = _drawn(levels[level], bands.get(place, ())) if level.needs_latent else levels[level]
    return found


def _residuals(audits: Sequence[Audit]) -> list[float]:
    """Of a band, against what its exact images are worth: as its loss in the profile."""
    return [loss - one.profile_loss for loss, one in zip(lost(audits), audits, strict=True)]


def _drawn(wider: Shift, residuals: Sequence[float]) -> Shift:
    """The mean of these, drawn towards the wider group's."""
    wider = Shift(max(0.0, wider.loss), wider.error)
    count = len(residuals)
    if not count:
        return wider
    weight = count / (count + PRIOR)
    spread = stdev(residuals) if count > 1 else UNKNOWN_SPREAD
    error = weight * spread / sqrt(count)
    loss = wider.loss + weight * (fmean(residuals) - wider.loss)
    return Shift(loss, sqrt(error**2 + ((1 - weight) * wider.error) ** 2))


def _towards(now: float, wanted: float) -> float:
    return round(now + min(MOST_CHANGE, max(-MOST_CHANGE, wanted - now)), 6)


def _sentence(band: BandOf, change: float, num_audits: int, profile: LevelProfile) -> str:
    near = f" from similarity {band.similarity_min:.2f}" if band.level.needs_latent else ""
    way = "more" if change > 0 else "less"
    return (
        f"{num_audits} recent audits: level {band.level.label(profile.base_steps)}{near} is promised to lose "
        f"{100 * abs(change):.1f} points {way} than before, the largest change"
    )
