"""Variants: which levels a policy chooses among, and what they lose on average if prompts are not told apart.

Prompt-agnostic systems (Proteus, PAC, the paper's assigner, INFaaS, Sommelier) know one loss a level:

    loss_j  = sum_c share_c D(c, j')      j' = what class c would be run at when it is sent to level j
    steps_j = sum_c share_c steps(c, j')  so a level that many prompts cannot have makes fewer images than its name says

share_c is the demand seen; without any, every band of similarity counts alike. Giving them the loss over *their*
demand, and the true pace, is generous: the published systems profile both once, offline.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from t2i_policy.level import Ladder, Level
from t2i_policy.planning.classes import (
    ITSELF,
    MUST_BE_EXACT,
    NO_NEIGHBOUR,
    OTHER_SEED,
    SAME_IMAGE,
    ClassTable,
    band_name,
    class_similarities,
)
from t2i_policy.planning.plan import GroupCapacity, PromptClass
from t2i_policy.request.decide import Rules
from t2i_policy.request.options import NOWHERE, Limits, Neighbourhood
from t2i_simulator.rivals.fallback import runnable_option

ALL_PROMPTS = "all"  # the one class of a policy that does not tell prompts apart
ANYTHING = Limits(max_loss=1.0)


class LadderPart(StrEnum):
    """A part of the hybrid ladder; the exact level belongs to each."""

    ALL = "All"
    SKIPS = "Skips"  # the papers' ladder: K of the full schedule
    SHORT = "Short"  # fewer steps, no latent


@dataclass(frozen=True, slots=True)
class MeanLevel:
    """What one level costs over all prompts: loss (fraction of exact) and denoising steps an image."""

    loss: float
    steps: float


def levels_of(ladder: Ladder, part: LadderPart) -> tuple[Level, ...]:
    """The part's levels, exact first, then by falling cost."""
    if part is LadderPart.ALL:
        return ladder.levels
    wants_latent = part is LadderPart.SKIPS
    return tuple(level for level in ladder.levels if level == ladder.exact or level.needs_latent is wants_latent)


def cheapest_of(ladder: Ladder, part: LadderPart) -> Level:
    """The part's level of fewest steps."""
    return levels_of(ladder, part)[-1]


def only(rules: Rules, part: LadderPart) -> Rules:
    """The rules of a pool that has this part of the ladder and no more."""
    if part is LadderPart.ALL:
        return rules
    levels = levels_of(rules.ladder, part)
    rows = {name: {at: row[at] for at in levels if at in row} for name, row in rules.classes.losses.items()}
    ladder = Ladder(rules.ladder.base_steps, levels)
    return replace(rules, ladder=ladder, classes=ClassTable(rules.classes.edges, rows))


def mean_levels(rules: Rules, part: LadderPart, rates_rps: Mapping[str, float]) -> dict[Level, MeanLevel]:
    """Loss and steps of each level over the demand by prompt class; see the module."""
    typical = typical_prompts(rules)
    weights = {name: rate for name, rate in rates_rps.items() if name in typical and rate > 0}
    weights = weights or {band_name(edge): 1.0 for edge in rules.classes.edges} or {NO_NEIGHBOUR: 1.0}
    total = sum(weights.values())
    means: dict[Level, MeanLevel] = {}
    for level in levels_of(rules.ladder, part):
        loss = steps = 0.0
        for name, weight in weights.items():
            near, limits = typical[name]
            run = runnable_option(rules, level, near, limits)
            loss += weight / total * run.expected_loss
            steps += weight / total * run.level.steps_run
        means[level] = MeanLevel(loss, steps)
    return means


def typical_prompts(rules: Rules) -> dict[str, tuple[Neighbourhood, Limits]]:
    """A prompt that stands for each class of the pool's table, everything stored."""
    stored = frozenset(level.skipped_steps for level in rules.ladder.levels if level.needs_latent)
    similarities = class_similarities(rules.profile, rules.classes.edges)
    rows = {name: (Neighbourhood(similarity, stored), ANYTHING) for name, similarity in similarities.items()}
    return rows | {
        NO_NEIGHBOUR: (NOWHERE, ANYTHING),
        MUST_BE_EXACT: (NOWHERE, Limits(0.0, exact=True)),
        SAME_IMAGE: (replace(ITSELF, stored_steps=stored, same_image=True), ANYTHING),
        OTHER_SEED: (replace(ITSELF, stored_steps=stored, repeated=True), ANYTHING),
    }


def mean_class(means: Mapping[Level, MeanLevel], rate_rps: float) -> PromptClass:
    """All prompts as one row of the planner."""
    return PromptClass(ALL_PROMPTS, rate_rps, {level: mean.loss for level, mean in means.items()})


def mean_capacities(groups: Sequence[GroupCapacity], means: Mapping[Level, MeanLevel]) -> tuple[GroupCapacity, ...]:
    """What workers really make at each level, given the steps that its images take on average."""
    return tuple(
        replace(
            group,
            rates_rps={
                level: group.rates_rps.get(level, 0.0) * level.steps_run / mean.steps for level, mean in means.items()
            },
        )
        for group in groups
    )
