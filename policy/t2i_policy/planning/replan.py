"""Replanning, the planning loop's one step: is a new plan due, and which one.

Operator, gateway in local mode and simulator run it. They give it the demand by prompt class and the workers that they
count on. A plan says where workers stand, what status shows, and what a Fixed mix draws. Prices answer a burst
(`request.price`), so a plan need not: it follows demand at most once in `DWELL_S`. A changed pool or spec is planned
for at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from t2i_policy.planning.classes import ClassTable
from t2i_policy.planning.plan import TINY_RPS, GroupCapacity, Places, Plan, count_workers, make_plan, rows_at_rest

MOVED_SHARE = 0.25  # of the demand, summed over classes: more than chance moves in a small pool
DWELL_S = 30.0  # the half-life of what is counted


class ReplanReason(StrEnum):
    """Why a plan replaced the one before."""

    NO_PLAN = "NoPlan"
    SPEC_CHANGED = "SpecChanged"
    POOL_CHANGED = "PoolChanged"
    DEMAND_CHANGED = "DemandChanged"
    RECALIBRATED = "Recalibrated"  # audits corrected the profile
    MODEL_MOVED = "ModelMoved"  # a worker is to hold another model


@dataclass(frozen=True, slots=True)
class PlanInputs:
    """What a plan is made from: classes of prompts and their rates, the workers counted on, and where those of a Fixed
    mix stand (`pinned`, empty if the program places them).
    """

    classes: ClassTable
    groups: Sequence[GroupCapacity]
    rates_rps: Mapping[str, float]
    pinned: Places = field(default_factory=dict)


def plan_step(before: Plan, inputs: PlanInputs, now_s: float) -> Plan:
    """The plan from now on: `before` itself if no other is due."""
    reason = why_replan(before, inputs, now_s)
    return before if reason is None else plan_anew(before, inputs, reason, now_s)


def plan_anew(before: Plan, inputs: PlanInputs, reason: str, now_s: float) -> Plan:
    """The plan that replaces `before`."""
    rates_rps = inputs.rates_rps
    if inputs.pinned:
        rates_rps = {**dict.fromkeys(inputs.classes.losses, 0.0), **rates_rps}  # all have a row
    plan = make_plan(inputs.groups, inputs.classes.with_rates(rates_rps), pinned=inputs.pinned)
    return succeed(before, plan, reason, now_s)


def succeed(before: Plan, plan: Plan, reason: str, now_s: float) -> Plan:
    """`plan` as the one that replaces `before`."""
    return replace(plan, revision=before.revision + 1, reason=reason, made_s=now_s)


def why_replan(before: Plan, inputs: PlanInputs, now_s: float) -> ReplanReason | None:
    """Compares demand and pool with what the running plan was made for. None: it stays."""
    if not before.revision:
        return ReplanReason.NO_PLAN
    if _is_other_mix(before, inputs):
        return ReplanReason.SPEC_CHANGED
    if count_workers(inputs.groups) != before.group_workers or _hold_other_models(before, inputs):
        return ReplanReason.POOL_CHANGED
    moved = _moved_share(inputs.rates_rps, before.rates_rps) > MOVED_SHARE
    return ReplanReason.DEMAND_CHANGED if moved and now_s - before.made_s >= DWELL_S else None


def _moved_share(now_rps: Mapping[str, float], then_rps: Mapping[str, float]) -> float:
    """What came and went of each class, of the larger demand: 0 equal, 1 one of them is nothing."""
    moved_rps = sum(abs(now_rps.get(name, 0.0) - then_rps.get(name, 0.0)) for name in {*now_rps, *then_rps})
    return moved_rps / max(sum(now_rps.values()), sum(then_rps.values()), TINY_RPS)


def _hold_other_models(before: Plan, inputs: PlanInputs) -> bool:
    """True if workers of a group hold other models than those planned for. A Fixed mix has no moves."""
    stood: dict[tuple[str, str], int] = {}
    for (name, level), count in before.workers.items():
        stood[name, level.model] = stood.get((name, level.model), 0) + count
    now = {(group.name, group.model): group.num_workers for group in inputs.groups if group.num_workers}
    models: dict[str, set[str]] = {}
    for name, model in (*stood, *now):
        models.setdefault(name, set()).add(model)
    mixed = {name for name, held in models.items() if len(held) > 1}
    return not inputs.pinned and any(stood.get(at) != now.get(at) for at in (*stood, *now) if at[0] in mixed)


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
