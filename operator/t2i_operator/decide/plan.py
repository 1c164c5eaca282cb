"""The plan of a pool: keep the running one, or replace it.

Auto counts on the workers that are ready. A Fixed mix counts on all that the spec has: it only changes with the spec
and with demand, never with readiness. What the next decision needs is in `status.plan`, so a restarted operator decides
as the one before it.
"""

from collections.abc import Mapping
from dataclasses import replace

from t2i_api.plan import PlanError, parse_plan
from t2i_operator.clock import Instant
from t2i_operator.decide.demand import current_rates, group_rates, measured_by_group, quiet_rps
from t2i_operator.decide.models import assigned_models, of_groups, serving_numbers
from t2i_operator.decide.types import DesiredPool, Holding, Observed
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


def decide_plan(desired: DesiredPool, seen: Observed, now: Instant) -> Plan:
    """The plan from now on: equal to the running one if that stays, NO_PLAN while there is nothing to plan with."""
    before, spec = running_plan(seen.status), desired.spec
    inputs = _inputs(desired, seen, before)
    reason = _why_replan(before, inputs, desired, seen, now)
    if reason is None:
        return before
    plan = plan_anew(before, inputs, reason, now.unix_s)
    # Workers at levels that the spec no longer has must move.
    stood = {(group, level): which for (group, level), which in before.numbers.items() if level in spec.ladder.levels}
    numbers = place_workers(plan, spec.group_sizes, of_groups(_counted_on(desired, seen, before)), stood)
    return replace(plan, numbers=numbers, corrections_revision=desired.corrections_revision)


def is_plan_due(desired: DesiredPool, seen: Observed, now: Instant) -> bool:
    """True if `decide_plan` would make a new plan for the reported demand. Cheap: nothing is planned."""
    before = running_plan(seen.status)
    return _why_replan(before, _inputs(desired, seen, before), desired, seen, now) is not None


def _inputs(desired: DesiredPool, seen: Observed, before: Plan) -> PlanInputs:
    """Demand so small that nothing needs to bend in these groups counts as none."""
    spec = desired.spec
    measured = measured_by_group(seen.reports)
    groups = group_rates(desired, _counted_on(desired, seen, before), measured)
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


def _counted_on(desired: DesiredPool, seen: Observed, before: Plan) -> dict[Holding, frozenset[int]]:
    spec = desired.spec
    if spec.pinned_workers:
        return {(group, model): frozenset(range(spec.group_sizes[group])) for group, model in spec.group_models.items()}
    return serving_numbers(seen, spec, assigned_models(spec, before.numbers))


def describe(numbers: Numbers, base_steps: int) -> str:
    """Workers by level in short: `5x0 2x10 1x0/25`, most steps first."""
    counts: dict[str, int] = {}
    for (_, level), which in sorted(numbers.items(), key=lambda item: (-item[0][1].cost, item[0][1])):
        label = level.label(base_steps)
        counts[label] = counts.get(label, 0) + len(which)
    return " ".join(f"{count}x{label}" for label, count in counts.items())
