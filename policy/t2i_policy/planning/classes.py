"""Prompt classes: prompts that lose alike, the rows of the plan.

A class is a band of similarity to the nearest cached prompt, as the profile measured it. The paper's wanted levels are
the special case of one band a level. A band's losses are the profile's bounds at its middle. A loss within the
tolerance counts as none, as the paper's D(i, j) = 0 for j <= i. What exceeds the pool's floor is not allowed at all.

Four more classes: `none` has no neighbour, and so only short schedules. `exact` may not bend: it asked for exact, or
for a schedule of its own. `same-image` has the latents of its own prompt and seed, and loses nothing by any skip.
`other-seed` repeats a prompt with another seed, and loses diversity too.
"""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from t2i_policy.level import Ladder, Level
from t2i_policy.planning.plan import PromptClass
from t2i_policy.profile import LevelProfile
from t2i_policy.request.options import HARMLESS_LOSS, NOWHERE, SAME_WORDS_FROM, Limits, Neighbourhood, loss_for

NO_NEIGHBOUR = "none"
MUST_BE_EXACT = "exact"
SAME_IMAGE = "same-image"
OTHER_SEED = "other-seed"


JUST_BELOW_SAME_WORDS = SAME_WORDS_FROM - 1e-6
ITSELF = Neighbourhood(1.0, frozenset())  # the nearest cached prompt of one that was asked before


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Lower edges of the similarity bands, ascending, and what each class loses at each level it may have."""

    edges: tuple[float, ...]
    losses: Mapping[str, Mapping[Level, float]]

    def classify(self, near: Neighbourhood, limits: Limits) -> str:
        """The class of one request. What another model must draw asks nothing of the pool's own."""
        pinned = limits.fixed_steps is not None or not limits.measured
        if limits.exact or (pinned and not limits.model):
            return MUST_BE_EXACT
        if near.similarity is None or not near.stored_steps or not self.edges:
            return NO_NEIGHBOUR
        if near.same_image:
            return SAME_IMAGE
        if near.another_take:
            return OTHER_SEED
        return band_name(self.edges[max(0, bisect.bisect_right(self.edges, near.similarity) - 1)])

    @property
    def allowed(self) -> frozenset[Level]:
        """Levels that the floor leaves to some class."""
        return frozenset(level for losses in self.losses.values() for level in losses)

    def with_rates(self, rates_rps: Mapping[str, float]) -> tuple[PromptClass, ...]:
        """The planner's rows for this demand; a class that this table does not know may not bend."""
        exact_only = self.losses[MUST_BE_EXACT]
        return tuple(
            PromptClass(name, rate, self.losses.get(name, exact_only)) for name, rate in sorted(rates_rps.items())
        )


def band_name(edge: float) -> str:
    """The name of the band that begins at `edge`, as in metrics and status."""
    return f"{edge:.2f}"


def build_classes(
    ladder: Ladder, profile: LevelProfile, max_loss: float, tolerance: float = HARMLESS_LOSS
) -> ClassTable:
    """The classes of a pool: `max_loss` is its floor as a fraction."""
    skips = {level for level in ladder.levels if level.needs_latent}
    edges = tuple(sorted({band.similarity_min for band in profile.losses if band.level in skips}))
    rows = {
        name: _losses(ladder, profile, Neighbourhood(similarity, frozenset()), max_loss, tolerance)
        for name, similarity in class_similarities(profile, edges).items()
    }
    rows[NO_NEIGHBOUR] = _losses(ladder, profile, NOWHERE, max_loss, tolerance)
    rows[MUST_BE_EXACT] = {ladder.exact: 0.0}
    rows[SAME_IMAGE] = _losses(ladder, profile, replace(ITSELF, same_image=True), max_loss, tolerance)
    rows[OTHER_SEED] = _losses(ladder, profile, replace(ITSELF, repeated=True), max_loss, tolerance)
    return ClassTable(edges, rows)


def models_below_floor(classes: ClassTable, ladder: Ladder, profile: LevelProfile, max_loss: float) -> tuple[str, ...]:
    """A sentence for each of the ladder's models that no class may be served by: its workers stand idle."""
    least: dict[str, float] = {}
    for level in ladder.levels:
        loss = loss_for(level, profile, NOWHERE)
        least[level.model] = min(least.get(level.model, 1.0), 1.0 if loss is None else loss)
    useful = {level.model for level in classes.allowed}
    return tuple(
        f"No request may be served by model {model}: it is promised {100 * (1 - loss):.1f} % of exact quality at best, "
        f"slo.minQualityPercent is {100 * (1 - max_loss):.0f}. Lower that, or give its groups another model."
        for model, loss in least.items()
        if model not in useful
    )


def class_similarities(profile: LevelProfile, edges: Sequence[float]) -> dict[str, float]:
    """The similarity that stands for each band: the middle of the part of it that a predictor was trained on.

    It lies below what counts as the same words: those prompts are a class of their own.
    """
    trained_from = -1.0 if profile.predictor is None else profile.predictor.lowest_similarity
    middles = {low: (max(low, min(trained_from, high)) + high) / 2 for low, high in itertools.pairwise((*edges, 1.0))}
    return {band_name(low): max(low, min(middle, JUST_BELOW_SAME_WORDS)) for low, middle in middles.items()}


def _losses(
    ladder: Ladder, profile: LevelProfile, near: Neighbourhood, max_loss: float, tolerance: float
) -> dict[Level, float]:
    bounds = {level: loss_for(level, profile, near) for level in ladder.levels}
    return {
        level: 0.0 if loss <= tolerance else loss
        for level, loss in bounds.items()
        if loss is not None and loss <= max_loss
    }
