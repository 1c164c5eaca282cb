"""Other truths than the profile that decisions believe: the shape of losses is wrong, not only their size.

A factor on all losses would change nothing that is decided, and every row by the same factor. What is assumed about
SDXL is the shape (`t2i_simulator.lineage`). Each of these keeps the published mean over the lineage's prompts at every
level, unless its name says otherwise.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from t2i_policy.profile import BandLoss, LevelProfile
from t2i_simulator.lineage import RELATIVE_QUALITY, bands, shares

SPREAD = 0.7  # of the factors' logarithms: a third of them are beyond 0.5 to 2
_SKIP_OF = {band.lower: band.skip for band in bands()}
_SHARE_OF = {band.lower: shares()[band.skip] for band in bands()}


def flat(profile: LevelProfile) -> LevelProfile:
    """Above its own level a prompt loses the same however far it goes: prompts hardly differ."""
    losses = []
    for one in profile.losses:
        own = [band for band in profile.losses if band.level == one.level]
        skip = one.level.skipped_steps
        if skip and _SKIP_OF[one.similarity_min] < skip:
            far = sum(_SHARE_OF[band.similarity_min] for band in own if _SKIP_OF[band.similarity_min] < skip)
            near = [band for band in own if _SKIP_OF[band.similarity_min] >= skip]
            lost = sum(_SHARE_OF[band.similarity_min] * band.mean_loss for band in near)
            one = replace(one, mean_loss=(1 - RELATIVE_QUALITY[skip] - lost) / far)
        losses.append(one)
    return replace(profile, losses=tuple(losses))


def shuffled(profile: LevelProfile) -> LevelProfile:
    """Every loss of a skip times a factor of its own, so that bands and levels change their order."""
    random = np.random.default_rng(3)
    factors = np.exp(random.normal(0, SPREAD, len(profile.losses))).tolist()
    drawn = [
        _times(one, factor) if one.level.needs_latent else one
        for one, factor in zip(profile.losses, factors, strict=True)
    ]
    means = {skip: 1 - quality for skip, quality in RELATIVE_QUALITY.items()}
    now = {
        skip: sum(_SHARE_OF[one.similarity_min] * one.mean_loss for one in drawn if one.level.skipped_steps == skip)
        for skip in means
        if skip
    }
    return replace(
        profile,
        losses=tuple(
            _times(one, means[skip] / now[skip]) if (skip := one.level.skipped_steps) else one for one in drawn
        ),
    )


def dearer(profile: LevelProfile, skips: float = 1.0, short: float = 1.0) -> LevelProfile:
    """Losses of skips, or of short schedules, times a factor."""
    return replace(
        profile,
        losses=tuple(_times(one, skips if one.level.needs_latent else short) for one in profile.losses),
    )


def _times(one: BandLoss, factor: float) -> BandLoss:
    return replace(one, mean_loss=min(1.0, factor * one.mean_loss))


TRUTHS: Mapping[str, Callable[[LevelProfile], LevelProfile]] = {
    "as believed": lambda profile: profile,
    "flat above a prompt's own level": flat,
    "shuffled between bands": shuffled,
    "skips lose twice as much": lambda profile: dearer(profile, skips=2.0),
    "short schedules lose three times as much": lambda profile: dearer(profile, short=3.0),
}
