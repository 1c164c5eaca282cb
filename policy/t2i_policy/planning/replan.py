"""Replanning, the planning loop's one step: is a new plan due, and which one.

Operator, gateway in local mode and simulator run it on the demand by prompt class and the workers that they count on.
More demand than planned for is answered at once, less only after a dwell time and past a wider margin, so that a rate
that swings around a threshold does not move workers to and fro (hysteresis). A rising trend is planned for `AHEAD_S`
ahead. A plan is made for what was seen, so the next step compares like with like.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from t2i_policy.planning.classes import ClassTable
from t2i_policy.planning.demand import SLOWER, Demand
from t2i_policy.planning.plan import GroupCapacity, Places, Plan, PlanRules, make_plan, rows_at_rest

AHEAD_S = 15.0


class ReplanReason(StrEnum):
    """Why a plan replaced the one before."""

    NO_PLAN = "NoPlan"
    SPEC_CHANGED = "SpecChanged"
    POOL_CHANGED = "PoolChanged"
    DEMAND_ROSE = "DemandRose"
    DEMAND_FELL = "DemandFell"
    MIX_SHIFTED = "MixShifted"


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """What a plan is made from: classes of prompts and their rates, the workers counted on, and where those of a Fixed
    mix stand (`pinned`, empty if the program places them).
    """

    classes: ClassTable
    groups: Sequence[GroupCapacity]
    rates_rps: Mapping[str, float]
    pinned: Places = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplanRules:
    """Margins as fractions of the planned rate; `mix_shift` is half the L1 distance of the class shares."""

    rise: float = 0.10
    fall: float = 0.25
    mix_shift: float = 0.10
    dwell_s: float = 30.0


@dataclass(frozen=True, slots=True)
class PlanningRules:
    """The planner's and the hysteresis's settings."""

    plan: PlanRules = field(default_factory=lambda: PlanRules(move_cost=1e-4))
    replan: ReplanRules = field(default_factory=ReplanRules)


def plan_step(before: Plan, inputs: PlanInputs, now_s: float, rules: PlanningRules = PlanningRules()) -> Plan:
    """The plan from now on: `before` itself if no other is due."""
    reason = why_replan(before, inputs, now_s, rules.replan)
    return before if reason is None else plan_anew(before, inputs, reason, now_s, rules.plan)


def plan_anew(
    before: Plan, inputs: PlanInputs, reason: str, now_s: float, rules: PlanRules = PlanningRules().plan
) -> Plan:
    """The plan that replaces `before`."""
    rates_rps = inputs.rates_rps
    if inputs.pinned:
        rates_rps = {**dict.fromkeys(inputs.classes.losses, 0.0), **rates_rps}  # all have a row
    plan = make_plan(inputs.groups, inputs.classes.with_rates(rates_rps), rules, before, inputs.pinned)
    return succeed(before, plan, reason, now_s)


def succeed(before: Plan, plan: Plan, reason: str, now_s: float) -> Plan:
    """`plan` as the one that replaces `before`."""
    return replace(plan, revision=before.revision + 1, reason=reason, made_s=now_s)


def why_replan(
    before: Plan, inputs: PlanInputs, now_s: float, rules: ReplanRules = ReplanRules()
) -> ReplanReason | None:
    """Compares demand and pool with what the running plan was made for. None: it stays."""
    if not before.revision:
        return ReplanReason.NO_PLAN
    if _is_other_mix(before, inputs):
        return ReplanReason.SPEC_CHANGED
    if count_workers(inputs.groups) != before.group_workers:
        return ReplanReason.POOL_CHANGED
    now_rps, then_rps = sum(inputs.rates_rps.values()), before.demand_rps
    if now_rps > then_rps * (1 + rules.rise):
        return ReplanReason.DEMAND_ROSE
    fell = now_rps < then_rps * (1 - rules.fall)
    if not fell and _distance(inputs.rates_rps, before.rates_rps) <= rules.mix_shift:
        return None
    if now_s - before.made_s < rules.dwell_s:
        return None
    return ReplanReason.DEMAND_FELL if fell else ReplanReason.MIX_SHIFTED


def _is_other_mix(before: Plan, inputs: PlanInputs) -> bool:
    """True if a Fixed mix began, ended or changed, or if what it draws without demand did: after a new measurement."""
    if not inputs.pinned:
        return before.binds
    at_rest = rows_at_rest(inputs.classes.losses, inputs.pinned)
    rows, known = (
        {name: row for name, row in found.items() if name not in before.rates_rps}
        for found in (at_rest, before.shift_map)
    )
    return not before.binds or before.workers != inputs.pinned or rows != known


def count_workers(groups: Sequence[GroupCapacity]) -> dict[str, int]:
    """By group."""
    return {group.name: group.num_workers for group in groups}


def expected_rates(demand: Demand, now_s: float, ahead_s: float = AHEAD_S) -> dict[str, float]:
    """Rates by class. If demand rises, scaled up as if it rose on like that; a fall is not extrapolated."""
    rates_rps = demand.rates_rps(now_s)
    total_rps = sum(rates_rps.values())
    risen_rps = max(0.0, total_rps - demand.earlier_rps(now_s))
    scale = 1 + risen_rps / total_rps * ahead_s / (SLOWER * demand.half_life_s) if total_rps > 0 else 1.0
    return {name: rate * scale for name, rate in rates_rps.items()}


def _distance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Half the L1 distance of two mixes' shares: 0 equal, 1 disjoint. Empty mixes are equal to anything."""
    total, other_total = sum(one.values()), sum(other.values())
    if total <= 0 or other_total <= 0:
        return 0.0
    names = {*one, *other}
    return sum(abs(one.get(name, 0.0) / total - other.get(name, 0.0) / other_total) for name in names) / 2
