"""The plan of a pool: keep the running one, or replace it.

Auto counts on the workers that are ready. A Fixed mix counts on all that the spec has: it only changes with the spec
and with demand, never with readiness. What the next decision needs is in `status.plan`, so a restarted operator decides
as the one before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from t2i_api.plan import PlanError, parse_plan
from t2i_operator.clock import Instant
from t2i_operator.decide.demand import current_rates, group_rates, measured_by_group, quiet_rps
from t2i_operator.decide.models import moves_on, of_groups
from t2i_operator.decide.moving import Movement, decide_movement, standing
from t2i_operator.decide.types import DesiredPool, Holding, Observed
from t2i_policy.level import Level
from t2i_policy.planning.assign import place_workers
from t2i_policy.planning.plan import NO_PLAN, Numbers, Plan
from t2i_policy.planning.replan import PlanInputs, ReplanReason, plan_anew, why_replan


def running_plan(status: Mapping[str, object]) -> Plan:
    """The plan in a status; NO_PLAN if there is none, or none that can be used."""
    plan = status.get("plan")
    if not isinstance(plan, Mapping):
        return NO_PLAN
    try:
        return parse_plan(plan)
    except PlanError:
        return NO_PLAN  # it is replaced by one that can be read


@dataclass(frozen=True, slots=True)
class PlanDecision:
    """The plan from now on, and which model each worker is to hold."""

    plan: Plan
    movement: Movement


def decide_plan(desired: DesiredPool, seen: Observed, now: Instant) -> PlanDecision:
    """The plan equals the running one if that stays; it is NO_PLAN while there is nothing to plan with."""
    before = running_plan(seen.status)
    movement = decide_movement(desired, seen, before, demand_of(desired, seen), now)
    inputs = _inputs(desired, seen, before, movement)
    reason = ReplanReason.MODEL_MOVED if movement.changed else _why_replan(before, inputs, desired, seen, now)
    if reason is None:
        return PlanDecision(before, movement)
    plan = plan_anew(before, inputs, reason, now.unix_s)
    numbers = _place(plan, before, desired, _counted_on(desired, seen, movement), movement)
    plan = replace(plan, numbers=numbers, corrections_revision=desired.corrections_revision)
    return PlanDecision(plan, movement)


def is_plan_due(desired: DesiredPool, seen: Observed, now: Instant) -> bool:
    """True if `decide_plan` would make a new plan for the reported demand. Cheap: nothing is planned, and whether a
    worker should move is not asked."""
    before = running_plan(seen.status)
    inputs = _inputs(desired, seen, before, standing(desired, seen, before))
    return _why_replan(before, inputs, desired, seen, now) is not None


def demand_of(desired: DesiredPool, seen: Observed) -> Mapping[str, float]:
    """Requests/s by class, as plans are made for them."""
    before = running_plan(seen.status)
    return _inputs(desired, seen, before, standing(desired, seen, before)).rates_rps


def _place(
    plan: Plan, before: Plan, desired: DesiredPool, counted: Mapping[Holding, frozenset[int]], movement: Movement
) -> Numbers:
    """Which worker stands where."""
    spec = desired.spec
    # Workers at levels that the spec no longer has must move.
    stood = {(group, level): which for (group, level), which in before.numbers.items() if level in spec.ladder.levels}
    if not moves_on(spec):
        return place_workers(plan, spec.group_sizes, of_groups(counted), stood)
    numbers = place_workers(plan, spec.group_sizes, of_groups(counted), stood, movement.assigned)
    placed = {(group, number) for (group, _), which in numbers.items() for number in which}
    more: dict[tuple[str, Level], list[int]] = {place: [*which] for place, which in numbers.items()}
    for worker, model in movement.assigned.items():
        if worker not in placed:  # its model is not planned with in its group yet
            more.setdefault((worker.group, spec.ladder.full_schedule(model)), []).append(worker.number)
    return {place: tuple(sorted(which)) for place, which in more.items()}


def _inputs(desired: DesiredPool, seen: Observed, before: Plan, movement: Movement) -> PlanInputs:
    """Demand so small that nothing needs to bend in these groups counts as none."""
    spec = desired.spec
    measured = measured_by_group(seen.reports)
    groups = group_rates(desired, _counted_on(desired, seen, movement), measured)
    rates_rps = current_rates(seen, before, quiet_rps(spec, groups))
    return PlanInputs(desired.classes, groups, rates_rps, spec.pinned_workers)


def _why_replan(before: Plan, inputs: PlanInputs, desired: DesiredPool, seen: Observed, now: Instant) -> str | None:
    if not inputs.groups:
        return None  # nobody to plan with
    if before.revision and seen.generation != seen.status.get("observedGeneration"):
        return ReplanReason.SPEC_CHANGED  # whatever the demand
    if before.revision and desired.corrections_revision != before.corrections_revision:
        return ReplanReason.RECALIBRATED
    return why_replan(before, inputs, now.unix_s)


def _counted_on(desired: DesiredPool, seen: Observed, movement: Movement) -> dict[Holding, frozenset[int]]:
    spec = desired.spec
    if spec.pinned_workers:
        return {(group, model): frozenset(range(spec.group_sizes[group])) for group, model in spec.group_models.items()}
    return movement.serving(spec, seen)


def describe(numbers: Numbers, base_steps: int) -> str:
    """Workers by level in short: `5x0 2x10 1x0/25`, most steps first."""
    counts: dict[str, int] = {}
    for (_, level), which in sorted(numbers.items(), key=lambda item: (-item[0][1].cost, item[0][1])):
        label = level.label(base_steps)
        counts[label] = counts.get(label, 0) + len(which)
    return " ".join(f"{count}x{label}" for label, count in counts.items())
