"""From scored twins to the bounds of the similarity bands. Pure.

A band with few twins borrows the most similar of those below it: what a twin loses hardly depends on the cosine. A band
without any is left alone: there the embedder tells twins and paraphrases apart.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from t2i_policy.profile import BandLoss
from t2i_policy.twin_loss import TwinLoss
from t2i_profiler.bands import Scored

MIN_PAIRS = 8  # fewer tell nothing of their own spread


def bound_by_twins(bands: Sequence[BandLoss], twins: Sequence[Scored]) -> tuple[BandLoss, ...]:
    """The bands with what the twins of their similarities lost; twins are scored at every level with a latent."""
    return tuple(replace(band, twins=_twin_loss(band, twins)) for band in bands)


def _twin_loss(band: BandLoss, twins: Sequence[Scored]) -> TwinLoss | None:
    if not band.level.needs_latent:
        return None
    up_to = sorted((one for one in twins if one.similarity < band.similarity_max), key=lambda one: -one.similarity)
    inside = [one for one in up_to if one.similarity >= band.similarity_min]
    taken = up_to[: max(MIN_PAIRS, len(inside))] if inside else []
    if len(taken) < 2:
        return None
    exact = max(float(np.mean([one.exact for one in taken])), 1e-9)
    lost = np.array([one.exact - one.by_level[band.level] for one in taken]) / exact
    return TwinLoss(float(lost.mean()), float(lost.std(ddof=1) / np.sqrt(len(lost))), len(taken))
