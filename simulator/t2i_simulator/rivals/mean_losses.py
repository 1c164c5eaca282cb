"""Mean losses: planning that does not tell prompts apart, and the levels that a rival chooses among.

Prompt-agnostic systems (Proteus, PAC, the paper's assigner, INFaaS, Sommelier) know one loss for each level:

    loss_j  = sum_c share_c D(c, j')      j' = the level that runs for class c when it is sent to level j
    steps_j = sum_c share_c steps(c, j')  so a level that many prompts cannot have makes fewer images than its name says

share_c is the demand seen; without demand all similarity bands have equal shares. This favours these systems: they get
the loss and the pace over the present demand, where the published ones profile both once, offline.

A plan by mean losses has one row in its shift map, `ALL_PROMPTS`: the share of all requests that each level gets.
Our joint program makes such plans for Proteus, PAC, the paper's assigner and the ablation without prompt classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

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
from t2i_policy.planning.plan import (
    GroupCapacity,
    Method,
    Plan,
    PlanOutcome,
    PromptClass,
    count_workers,
    make_plan,
    sort_row,
)
from t2i_policy.planning.replan import succeed
from t2i_policy.policies import PoolState
from t2i_policy.request.decide import Rules
from t2i_policy.request.options import NOWHERE, Limits, Neighbourhood
from t2i_simulator.rivals.common import AS_PUBLISHED, Strength, runnable_option

MAP_PERIOD_S = 10.0  # serving by the map needs a fresh one
ALL_PROMPTS = "all"  # the only class of a policy that does not tell prompts apart
ANYTHING = Limits(max_loss=1.0)


class LadderPart(StrEnum):
    """A part of the ladder. Each holds the exact level."""

    ALL = "All"
    SKIPS = "Skips"  # the papers' ladder: K of the full schedule, and what other models of the pool have
    SHORT = "Short"  # fewer steps, no latent


@dataclass(frozen=True, slots=True)
class MeanLevel:
    """The mean over all prompts of the loss, and of the denoising steps an image."""

    loss: float
    steps: float


def levels_of(ladder: Ladder, part: LadderPart) -> tuple[Level, ...]:
    """The levels of the part, the exact one first, then by falling cost."""
    if part is LadderPart.ALL:
        return ladder.levels
    wants_latent = part is LadderPart.SKIPS
    return tuple(
        level for level in ladder.levels if level == ladder.exact or level.model or level.needs_latent is wants_latent
    )


def budgets_of(ladder: Ladder, strength: Strength) -> tuple[Level, ...]:
    """What a rival chooses among, by falling cost: the papers' ladder, or one level for each number of steps."""
    if not strength.whole_ladder:
        return levels_of(ladder, LadderPart.SKIPS)
    return tuple({level.cost: level for level in reversed(ladder.levels)}.values())[::-1]


def only(rules: Rules, part: LadderPart) -> Rules:
    """The rules of a pool that has only this part of the ladder."""
    if part is LadderPart.ALL:
        return rules
    levels = levels_of(rules.ladder, part)
    rows = {name: {at: row[at] for at in levels if at in row} for name, row in rules.classes.losses.items()}
    ladder = Ladder(rules.ladder.base_steps, levels)
    return replace(rules, ladder=ladder, classes=ClassTable(rules.classes.edges, rows))


def mean_levels(
    rules: Rules, rates_rps: Mapping[str, float], strength: Strength = AS_PUBLISHED
) -> dict[Level, MeanLevel]:
    """loss_j and steps_j of the module, over the demand by prompt class."""
    typical = typical_prompts(rules)
    weights = {name: rate for name, rate in rates_rps.items() if name in typical and rate > 0}
    # Before any demand all bands count alike; a profile may have no bands either.
    weights = weights or {band_name(edge): 1.0 for edge in rules.classes.edges} or {NO_NEIGHBOUR: 1.0}
    total = sum(weights.values())
    means: dict[Level, MeanLevel] = {}
    for level in budgets_of(rules.ladder, strength):
        loss = steps = 0.0
        for name, weight in weights.items():
            near, limits = typical[name]
            run = runnable_option(rules, level, near, limits, strength)
            loss += weight / total * run.expected_loss
            steps += weight / total * run.level.cost
        means[level] = MeanLevel(loss, steps)
    return means


class TypicalPrompt(NamedTuple):
    near: Neighbourhood
    limits: Limits = ANYTHING


def typical_prompts(rules: Rules) -> dict[str, TypicalPrompt]:
    """A prompt for each class of the pool's table, as if the cache held every latent."""
    stored = frozenset(level.skipped_steps for level in rules.ladder.levels if level.needs_latent)
    similarities = class_similarities(rules.profile, rules.classes.edges)
    rows = {name: TypicalPrompt(Neighbourhood(similarity, stored)) for name, similarity in similarities.items()}
    return rows | {
        NO_NEIGHBOUR: TypicalPrompt(NOWHERE),
        MUST_BE_EXACT: TypicalPrompt(NOWHERE, Limits(0.0, exact=True)),
        SAME_IMAGE: TypicalPrompt(replace(ITSELF, stored_steps=stored, same_image=True)),
        OTHER_SEED: TypicalPrompt(replace(ITSELF, stored_steps=stored, repeated=True)),
    }


def mean_class(means: Mapping[Level, MeanLevel], rate_rps: float) -> PromptClass:
    """All prompts as one class for the planner."""
    return PromptClass(ALL_PROMPTS, rate_rps, {level: mean.loss for level, mean in means.items()})


def mean_capacities(groups: Sequence[GroupCapacity], means: Mapping[Level, MeanLevel]) -> tuple[GroupCapacity, ...]:
    """Groups with the rates that they reach at each level, given the mean steps of its images."""
    return tuple(
        replace(
            group,
            rates_rps={
                level: group.rates_rps.get(level, 0.0) * level.cost / mean.steps for level, mean in means.items()
            },
        )
        for group in groups
    )


def agnostic_plan(
    rules: Rules,
    strength: Strength,
    rates_rps: Mapping[str, float],
    groups: Sequence[GroupCapacity],
    headroom: float,
) -> Plan:
    """The best plan by mean losses."""
    means = mean_levels(rules, rates_rps, strength)
    one = mean_class(means, sum(rates_rps.values()))
    return plan_with_room(mean_capacities(groups, means), [one], headroom)


def plan_with_room(groups: Sequence[GroupCapacity], classes: Sequence[PromptClass], headroom: float) -> Plan:
    """The best plan for `headroom` times the demand. It tells of the demand itself."""
    plan = make_plan(groups, [replace(one, rate_rps=headroom * one.rate_rps) for one in classes])
    rates_rps = {one.name: one.rate_rps for one in classes}
    return replace(plan, rates_rps=rates_rps, shed_rps=plan.shed_rps / headroom)


def next_plan(before: Plan, plan: Plan, seen: PoolState) -> Plan:
    """A plan that a fixed period made due."""
    made_for = replace(plan, group_workers=count_workers(seen.groups))
    return succeed(before, made_for, "Period", seen.now_s)


def is_time(before: Plan, seen: PoolState, period_s: float) -> bool:
    """Whether a new plan is due: at the start, once a period, and when workers came or went."""
    late = seen.now_s - before.made_s >= period_s
    return not before.revision or late or dict(before.group_workers) != count_workers(seen.groups)


def planned_anew(rules: Rules, before: Plan, seen: PoolState, headroom: float) -> Plan:
    """Our program for each class of prompts, so often that its map can be served by."""
    if not is_time(before, seen, MAP_PERIOD_S):
        return before
    classes = rules.classes.with_rates(seen.demand.rates_rps(seen.now_s))
    return next_plan(before, plan_with_room(seen.groups, classes, headroom), seen)


def drawn_level(plan: Plan, draw: float, otherwise: Level) -> Level:
    """The level that the row `ALL_PROMPTS` gives at this draw; `otherwise` without that row."""
    return plan.draw(ALL_PROMPTS, draw) or otherwise


def equal_share_plan(
    levels: Mapping[str, Level], groups: Sequence[GroupCapacity], means: Mapping[Level, MeanLevel], rate_rps: float
) -> Plan:
    """A plan with one level for each group, in which every worker gets the same share of the load."""
    serving = [group for group in groups if group.name in levels and group.num_workers]
    count = sum(group.num_workers for group in serving)
    shares: dict[Level, float] = {}
    for group in serving:
        level = levels[group.name]
        shares[level] = shares.get(level, 0.0) + group.num_workers / count
    most_rps = sum(group.num_workers * group.rates_rps.get(levels[group.name], 0.0) for group in serving)
    shed_rps = max(0.0, rate_rps - most_rps)
    outcome = PlanOutcome.SOME_SHED if shed_rps > 0 else PlanOutcome.ALL_SERVED
    return Plan(
        workers={(group.name, levels[group.name]): group.num_workers for group in serving},
        shift_map={ALL_PROMPTS: sort_row(shares)} if serving else {},
        shed_rps=shed_rps,
        mean_loss=sum(share * means[level].loss for level, share in shares.items()),
        outcome=outcome if serving else PlanOutcome.NO_WORKERS,
        method=Method.GREEDY,
        rates_rps={ALL_PROMPTS: rate_rps},
    )
