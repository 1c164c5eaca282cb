"""From scored images to the profile's losses D(i, j): paired differences to exact, by similarity band. Pure.

What twins lost bounds each band. One with few twins borrows the most similar of those below it: what a twin loses
hardly depends on the cosine. A band without any is left alone: there the embedder tells twins and paraphrases apart.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from t2i_policy.level import Level
from t2i_policy.profile import BandLoss
from t2i_policy.twin_loss import TwinLoss

#: Similarity bands before merging: narrow where similarity is high, because there the ladder decides.
EDGES = (-1.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.01)
MIN_SAMPLES = 15
MIN_PAIRS = 8  # of twins; fewer tell nothing of their own spread


@dataclass(frozen=True, slots=True)
class Scored:
    """One asked prompt: its similarity to the nearest kept one, its exact score, its score at each level.

    `exact_spread` and `spreads` are mean distances between its images of different seeds; `wins` the share of its
    images that scored better than exact. Empty: not measured.
    `words_agree`: whether its distinguishing words are those of the kept one; None = unknown.
    """

    similarity: float
    exact: float
    by_level: Mapping[Level, float]
    exact_spread: float = 0.0
    spreads: Mapping[Level, float] = field(default_factory=dict)
    wins: Mapping[Level, float] = field(default_factory=dict)
    words_agree: bool | None = None


def merged_edges(similarities: Sequence[float]) -> tuple[float, ...]:
    """EDGES without those that would leave a band with fewer than MIN_SAMPLES; lower bands join upward."""
    values = np.asarray(similarities)
    edges = [EDGES[0]]
    for edge in EDGES[1:-1]:
        inside = int(((values >= edges[-1]) & (values < edge)).sum())
        above = int((values >= edge).sum())
        if inside >= MIN_SAMPLES and above >= MIN_SAMPLES:
            edges.append(edge)
    return (*edges, EDGES[-1])


def band_losses(scored: Sequence[Scored], levels: Sequence[Level]) -> tuple[BandLoss, ...]:
    """Loss of every level: one band for schedules without a latent, similarity bands for skips."""
    edges = merged_edges([one.similarity for one in scored])
    bands = list(itertools.pairwise(edges))
    losses: list[BandLoss] = []
    for level in levels:
        for low, high in bands if level.needs_latent else [(EDGES[0], EDGES[-1])]:
            inside = [one for one in scored if low <= one.similarity < high]
            if inside:
                losses.append(_loss(level, low, high, inside))
    return tuple(losses)


def _loss(level: Level, low: float, high: float, inside: Sequence[Scored]) -> BandLoss:
    """Of the scores, and of the spreads where they were measured."""
    mean, error = _lost([one.exact for one in inside], [one.by_level[level] for one in inside])
    wins = [one.wins[level] for one in inside if level in one.wins]
    band = BandLoss(level, low, high, mean, error, len(inside), win_rate=float(np.mean(wins)) if wins else None)
    if not all(level in one.spreads for one in inside):
        return band
    mean, error = _lost([one.exact_spread for one in inside], [one.spreads[level] for one in inside])
    return replace(band, diversity_loss=mean, diversity_error=error)


def _lost(exact: Sequence[float], level: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error of (exact - level), as a fraction of the mean of exact."""
    lost = (np.array(exact) - np.array(level)) / max(float(np.mean(exact)), 1e-9)
    return float(lost.mean()), float(lost.std(ddof=1) / np.sqrt(len(lost))) if len(lost) > 1 else 1.0


def largest_error(scored: Sequence[Scored]) -> float:
    """Of the mean losses of all levels over these prompts, the largest standard error, as a fraction of exact."""
    return max((error for _, error in _lost_by_level(scored).values()), default=0.0)


def prompts_needed(scored: Sequence[Scored], standard_error: float) -> int:
    """How many prompts bring the mean loss of every level to this standard error, as these few spread (Stein 1945)."""
    spreads = [error * np.sqrt(len(scored)) for _, error in _lost_by_level(scored).values()]
    return max((int(np.ceil((spread / standard_error) ** 2)) for spread in spreads), default=0)


def _lost_by_level(scored: Sequence[Scored]) -> dict[Level, tuple[float, float]]:
    exact = [one.exact for one in scored]
    levels = scored[0].by_level if scored else ()
    return {level: _lost(exact, [one.by_level[level] for one in scored]) for level in levels}


def bound_by_twins(bands: Sequence[BandLoss], twins: Sequence[Scored]) -> tuple[BandLoss, ...]:
    """The bands with what the twins of their similarities lost; twins are scored at every level with a latent."""
    return tuple(replace(band, twins=_twin_loss(band, twins)) for band in bands)


def _twin_loss(band: BandLoss, twins: Sequence[Scored]) -> TwinLoss | None:
    """Of all twins; and in two parts, where enough of them differ in words."""
    if not band.level.needs_latent:
        return None
    up_to = sorted((one for one in twins if one.similarity < band.similarity_max), key=lambda one: -one.similarity)
    num_inside = _count_inside(band, up_to)
    whole = _lost_by(band, up_to, num_inside) if num_inside else None
    if whole is None:
        return None
    differ, pass_by = ([one for one in up_to if (one.words_agree is False) is told] for told in (True, False))
    differing = _lost_by(band, differ, _count_inside(band, differ))
    if differing is None or differing.num_pairs < MIN_PAIRS:
        return whole
    passing = _lost_by(band, pass_by, _count_inside(band, pass_by)) if pass_by else None
    return replace(whole, differing=differing, passing=passing or (whole if pass_by else None))


def _count_inside(band: BandLoss, twins: Sequence[Scored]) -> int:
    return sum(band.similarity_min <= one.similarity < band.similarity_max for one in twins)


def _lost_by(band: BandLoss, by_similarity: Sequence[Scored], num_inside: int) -> TwinLoss | None:
    """Of the most similar ones: all that are inside the band, and MIN_PAIRS at least."""
    taken = by_similarity[: max(MIN_PAIRS, num_inside)]
    if len(taken) < 2:
        return None
    exact = max(float(np.mean([one.exact for one in taken])), 1e-9)
    lost = np.array([one.exact - one.by_level[band.level] for one in taken]) / exact
    return TwinLoss(float(lost.mean()), float(lost.std(ddof=1) / np.sqrt(len(lost))), len(taken))
