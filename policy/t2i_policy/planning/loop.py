"""The planning loop's one step: is a new plan due, and which one. Operator, gateway in local mode and simulator run it.

Decided from the demand by prompt class and the workers that are ready. A rising trend is planned for `AHEAD_S` ahead.
A plan is made for what was seen, so the next step compares like with like.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from t2i_policy.planning.classes import ClassTable
from t2i_policy.planning.demand import Demand
from t2i_policy.planning.plan import GroupCapacity, Plan, PlanRules, make_plan
from t2i_policy.planning.replan import PlannedFor, ReplanReason, ReplanRules, choose_replan, with_trend

AHEAD_S = 15.0


@dataclass(frozen=True, slots=True)
class Planning:
    """The running plan, what it was made for, how many there were, and why the last step did what it did."""

    plan: Plan | None = None
    planned_for: PlannedFor | None = None
    revision: int = 0
    reason: ReplanReason = ReplanReason.NO_PLAN


@dataclass(frozen=True, slots=True)
class PlanningRules:
    """The planner's and the hysteresis's settings."""

    plan: PlanRules = field(default_factory=lambda: PlanRules(move_cost=1e-4))
    replan: ReplanRules = field(default_factory=ReplanRules)


def plan_step(
    planning: Planning,
    classes: ClassTable,
    groups: Sequence[GroupCapacity],
    demand: Demand,
    now_s: float,
    rules: PlanningRules = PlanningRules(),
) -> Planning:
    """The same object with another reason if no plan was due."""
    rates_rps = expected_rates(demand, now_s)
    planned_for = PlannedFor(rates_rps, {group.name: group.num_workers for group in groups}, now_s)

    def make() -> Plan:
        return make_plan(groups, classes.with_rates(rates_rps), rules.plan, planning.plan)

    return when_due(planning, planned_for, rules.replan, make)


def when_due(planning: Planning, planned_for: PlannedFor, rules: ReplanRules, make: Callable[[], Plan]) -> Planning:
    """`planning` with the plan that `make` makes for these rates and workers, if one is due for them; else as it is,
    with the reason why not.
    """
    decision = choose_replan(planning.planned_for, planned_for.rates_rps, planned_for.workers, planned_for.at_s, rules)
    if not decision.due:
        return replace(planning, reason=decision.reason)
    return Planning(make(), planned_for, planning.revision + 1, decision.reason)


def expected_rates(demand: Demand, now_s: float, ahead_s: float = AHEAD_S) -> dict[str, float]:
    """Rates by class, scaled up by the trend if demand rises."""
    rates_rps = demand.rates_rps(now_s)
    total_rps = sum(rates_rps.values())
    apart_s = 4 * demand.half_life_s
    ahead_rps = with_trend(total_rps, demand.earlier_rps(now_s), apart_s, ahead_s)
    scale = ahead_rps / total_rps if total_rps > 0 else 1.0
    return {name: rate * scale for name, rate in rates_rps.items()}
