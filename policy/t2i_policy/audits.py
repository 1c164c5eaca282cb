"""Audits: one judged pair each, and what many of them say together. Pure numbers, no images and no prompts.

lost          = (exact quality - quality) / mean exact quality          ratio of means, as a profile's losses are
residual      = lost - promised loss, of one audit
measured      = mean of lost;  standard error = spread of residuals / sqrt(audits)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev
from typing import NamedTuple

from t2i_policy.kept_promise import AuditedQuality
from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile

NO_BAND = -1.0  # of levels that need no latent, and of similarities that were never measured
LEAST_QUALITY = 0.01  # of exact images on average: below, a share of it says nothing


class BandOf(NamedTuple):
    """A level in one band of similarity, by the band's lower edge in the profile."""

    level: Level
    similarity_min: float


@dataclass(frozen=True, slots=True)
class Audit:
    """One pair. Qualities are in 0..1 by the judge's scale. `promised_loss` has the corrections in it that were in
    force, `profile_loss` none; both are fractions of exact."""

    band: BandOf
    quality: float
    exact_quality: float
    promised_loss: float
    profile_loss: float


@dataclass(frozen=True, slots=True)
class AuditSummary:
    """Of some audits; losses are fractions of exact. `standard_error` is of measured - promised; 1 where one audit, or
    none, tells nothing of it."""

    num_audits: int
    promised_loss: float
    measured_loss: float
    standard_error: float

    @property
    def quality(self) -> AuditedQuality:
        """The same as qualities."""
        return AuditedQuality(self.num_audits, 1 - self.promised_loss, 1 - self.measured_loss, self.standard_error)


def band_of(profile: LevelProfile, level: Level, similarity: float | None) -> BandOf:
    """Where an audit belongs."""
    band = profile.band(level, similarity)
    return BandOf(level, NO_BAND if band is None else band.similarity_min)


def lost(audits: Sequence[Audit]) -> list[float]:
    """What each lost, as a fraction of what exact images are worth on average."""
    mean_exact = max(LEAST_QUALITY, fmean(one.exact_quality for one in audits))
    return [(one.exact_quality - one.quality) / mean_exact for one in audits]


def summarise(audits: Sequence[Audit]) -> AuditSummary:
    """What they say together."""
    if not audits:
        return AuditSummary(0, 0.0, 0.0, 1.0)
    losses = lost(audits)
    residuals = [loss - one.promised_loss for loss, one in zip(losses, audits, strict=True)]
    error = stdev(residuals) / sqrt(len(audits)) if len(audits) > 1 else 1.0
    return AuditSummary(len(audits), fmean(one.promised_loss for one in audits), fmean(losses), error)


def by_band(audits: Iterable[Audit]) -> Mapping[BandOf, list[Audit]]:
    """In the order of levels and bands."""
    found: dict[BandOf, list[Audit]] = {}
    for one in audits:
        found.setdefault(one.band, []).append(one)
    return dict(sorted(found.items()))
