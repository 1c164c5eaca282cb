"""Prompt-agnostic planning: our joint program with all prompts in one row of mean losses.

Shared by PAC, Proteus, the paper's assigner and the ablation without prompt classes. Its shift map has the one row
`variants.ALL_PROMPTS`: the share of all requests that each level gets.
"""

from collections.abc import Mapping, Sequence

from t2i_policy.level import Level
from t2i_policy.planning.loop import Planning, PlanningRules, expected_rates, when_due
from t2i_policy.planning.plan import GroupCapacity, Method, Plan, PlanReason, PlanRules, make_plan
from t2i_policy.planning.replan import PlannedFor, ReplanReason
from t2i_policy.policies import Course, PoolState
from t2i_policy.request.decide import Rules, draw_level
from t2i_simulator.rivals.variants import (
    ALL_PROMPTS,
    LadderPart,
    MeanLevel,
    mean_capacities,
    mean_class,
    mean_levels,
)


def agnostic_plan(
    rules: Rules,
    part: LadderPart,
    rates_rps: Mapping[str, float],
    groups: Sequence[GroupCapacity],
    settings: tuple[PlanRules, Plan | None],
) -> Plan:
    """The best plan that knows only mean losses. `settings` are the planner's rules and the plan before."""
    means = mean_levels(rules, part, rates_rps)
    one = mean_class(means, sum(rates_rps.values()))
    return make_plan(mean_capacities(groups, means), [one], *settings)


def agnostic_step(
    rules: Rules, part: LadderPart, planning: Planning, seen: PoolState, settings: PlanningRules
) -> Planning:
    """`planning.plan_step` without prompt classes: the same trend and hysteresis, on the total rate."""
    rates_rps = expected_rates(seen.demand, seen.now_s)
    total = {ALL_PROMPTS: sum(rates_rps.values())}
    planned_for = PlannedFor(total, {group.name: group.num_workers for group in seen.groups}, seen.now_s)

    def make() -> Plan:
        return agnostic_plan(rules, part, rates_rps, seen.groups, (settings.plan, planning.plan))

    return when_due(planning, planned_for, settings.replan, make)


def next_planning(planning: Planning, plan: Plan, rates_rps: Mapping[str, float], seen: PoolState) -> Planning:
    """`planning` after a plan that was made because its time had come."""
    workers = {group.name: group.num_workers for group in seen.groups}
    reason = ReplanReason.NO_PLAN if planning.plan is None else ReplanReason.STEADY
    return Planning(plan, PlannedFor(rates_rps, workers, seen.now_s), planning.revision + 1, reason)


def is_time(planning: Planning, seen: PoolState, period_s: float) -> bool:
    """True once a period, at the start, and when workers came or went."""
    planned = planning.planned_for
    workers = {group.name: group.num_workers for group in seen.groups}
    return planned is None or seen.now_s - planned.at_s >= period_s or dict(planned.workers) != workers


def drawn_level(course: Course, draw: float, otherwise: Level) -> Level:
    """The level that the one row of the shift map gives at this draw; `otherwise` without a row."""
    return draw_level(course.shift.get(ALL_PROMPTS, ()), draw) or otherwise


def equal_share_plan(
    levels: Mapping[str, Level], groups: Sequence[GroupCapacity], means: Mapping[Level, MeanLevel], rate_rps: float
) -> Plan:
    """The plan in which all workers of a group stand at its level and every worker gets the same share of the load."""
    standing = [group for group in groups if group.name in levels and group.num_workers]
    count = sum(group.num_workers for group in standing)
    shares: dict[tuple[str, Level], float] = {}
    for group in standing:
        place = (ALL_PROMPTS, levels[group.name])
        shares[place] = shares.get(place, 0.0) + group.num_workers / count
    most_rps = sum(group.num_workers * group.rates_rps.get(levels[group.name], 0.0) for group in standing)
    shed_rps = max(0.0, rate_rps - most_rps)
    reason = PlanReason.SOME_SHED if shed_rps > 0 else PlanReason.ALL_SERVED
    return Plan(
        workers={(group.name, levels[group.name]): group.num_workers for group in standing},
        shift_map=shares,
        demand_rps=rate_rps,
        shed_rps=shed_rps,
        mean_loss=sum(share * means[level].loss for (_, level), share in shares.items()),
        reason=reason if standing else PlanReason.NO_WORKERS,
        method=Method.GREEDY,
    )
