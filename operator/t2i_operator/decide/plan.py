"""The plan of a pool: keep the running one, or replace it.

Fixed: the mix that the spec asks for, laid out over all workers; it only changes with the spec, never with readiness.
Its shift map follows the reported demand (`t2i_policy.planning.fixed_mix`).
Auto: `t2i_policy.planning.replan.plan_step` on the demand that gateways report and the workers that are ready. What it
needs to go on is in `status.plan`, so a restarted operator decides as the one before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from t2i_api.plan import PlanError, parse_plan
from t2i_api.pool import PoolSpec
from t2i_operator.clock import Instant
from t2i_operator.decide.demand import (
    current_demand,
    group_rates,
    measured_by_group,
    quiet_rps,
)
from t2i_operator.decide.types import DesiredPool, Observed
from t2i_policy.planning.assign import place_workers
from t2i_policy.planning.classes import build_classes
from t2i_policy.planning.fixed_mix import lay_out, rows_at_rest, with_shifts
from t2i_policy.planning.plan import NO_PLAN, GroupCapacity, Numbers, Plan, ShiftMap
from t2i_policy.planning.replan import PlanningRules, count_workers, expected_rates, plan_step, succeed, why_replan

FIXED_MIX = "FixedMix"


@dataclass(frozen=True, slots=True)
class _PlanInputs:
    """The running plan, the spec's view of it, and who is there."""

    before: Plan
    sizes: Mapping[str, int]
    ready: Mapping[str, frozenset[int]]

    @property
    def everybody(self) -> dict[str, frozenset[int]]:
        """All workers that the spec has, ready or not."""
        return {group: frozenset(range(size)) for group, size in self.sizes.items()}


def running_plan(status: Mapping[str, object]) -> Plan:
    """The plan in a status; NO_PLAN if there is none, or none that can be used."""
    plan = status.get("plan")
    if not isinstance(plan, Mapping):
        return NO_PLAN
    try:
        return parse_plan(plan)
    except PlanError:
        return NO_PLAN  # it is replaced by one that can be read


def _scene(desired: DesiredPool, seen: Observed) -> _PlanInputs:
    sizes = desired.spec.group_sizes
    return _PlanInputs(running_plan(seen.status), sizes, ready_numbers(seen, sizes))


def decide_plan(desired: DesiredPool, seen: Observed, now: Instant) -> Plan:
    """The plan from now on: equal to the running one if that stays, NO_PLAN while there is nothing to plan with."""
    scene = _scene(desired, seen)
    if desired.spec.mix.mode == "Fixed":
        return _fixed(desired, seen, scene, now)
    return _planned(desired, seen, scene, now)


def is_plan_due(desired: DesiredPool, seen: Observed, now: Instant) -> bool:
    """True if `decide_plan` would make a new plan for the reported demand. Cheap: nothing is planned."""
    scene = _scene(desired, seen)
    before = scene.before
    if desired.spec.mix.mode == "Fixed":
        rates_rps = _rates(desired, seen, scene, _everybody(desired, seen, scene), now)
        return before.revision > 0 and why_replan(before, rates_rps, scene.sizes, now.unix_s) is not None
    groups = group_rates(desired, scene.ready, measured_by_group(seen.reports), desired.spec.slo.latency_s)
    if not groups:
        return False
    rates_rps = _rates(desired, seen, scene, groups, now)
    due = why_replan(before, rates_rps, count_workers(groups), now.unix_s, PlanningRules().replan)
    return _is_changed(before, seen) or due is not None


def ready_numbers(seen: Observed, sizes: Mapping[str, int]) -> dict[str, frozenset[int]]:
    """Ready workers of each group; those beyond its size, and those that fail their requests, left out."""
    serving = [pod for pod in seen.workers if pod.ready and pod.name not in seen.failing]
    return {
        group: frozenset(
            pod.number for pod in serving if pod.group == group and pod.number is not None and pod.number < size
        )
        for group, size in sizes.items()
    }


def _fixed(desired: DesiredPool, seen: Observed, scene: _PlanInputs, now: Instant) -> Plan:
    spec, before, reason = desired.spec, scene.before, FIXED_MIX
    mix = lay_out(spec.fixed_workers, scene.sizes)
    numbers = place_workers(mix, scene.sizes, scene.everybody, before.numbers)
    groups = _everybody(desired, seen, scene)
    rates_rps = _rates(desired, seen, scene, groups, now)
    classes = build_classes(spec.ladder, desired.profile, spec.slo.max_loss, spec.slo.harmless_loss)
    if not _is_changed_mix(before, seen, numbers, rows_at_rest(mix, classes)):
        due = why_replan(before, rates_rps, scene.sizes, now.unix_s)
        if due is None:
            return before
        reason = due
    plan = with_shifts(mix, groups, classes, rates_rps, PlanningRules().plan)
    return succeed(before, replace(plan, numbers=numbers), reason, now.unix_s)


def _is_changed_mix(before: Plan, seen: Observed, numbers: Numbers, at_rest: ShiftMap) -> bool:
    """True if the spec is another than the running plan was made for, a worker must move, or what the mix draws without
    demand is something else: a new measurement, or a plan of a version that did not say.
    """
    rows = {name: row for name, row in at_rest.items() if name not in before.rates_rps}
    known = {name: row for name, row in before.shift_map.items() if name not in before.rates_rps}
    return _is_changed(before, seen, fixed=True) or before.numbers != numbers or known != rows


def _rates(
    desired: DesiredPool, seen: Observed, scene: _PlanInputs, groups: Sequence[GroupCapacity], now: Instant
) -> dict[str, float]:
    """Expected demand by class; for so little of it that nothing needs to bend in these groups, none."""
    quiet = quiet_rps(desired.spec, groups)
    return expected_rates(current_demand(seen, scene.before, quiet, now), now.unix_s)


def _everybody(desired: DesiredPool, seen: Observed, scene: _PlanInputs) -> tuple[GroupCapacity, ...]:
    """What all workers that the spec has make, ready or not."""
    return group_rates(desired, scene.everybody, measured_by_group(seen.reports), desired.spec.slo.latency_s)


def _planned(desired: DesiredPool, seen: Observed, scene: _PlanInputs, now: Instant) -> Plan:
    spec, before = desired.spec, scene.before
    groups = group_rates(desired, scene.ready, measured_by_group(seen.reports), spec.slo.latency_s)
    if not groups:
        return before  # nobody to plan with
    classes = build_classes(spec.ladder, desired.profile, spec.slo.max_loss, spec.slo.harmless_loss)
    # After a change of the spec a new plan is due whatever the demand.
    outdated = replace(before, group_workers={}) if _is_changed(before, seen) else before
    demand = current_demand(seen, before, quiet_rps(spec, groups), now)
    after = plan_step(outdated, classes, groups, demand, now.unix_s)
    if after is outdated:
        return before
    return replace(after, numbers=place_workers(after, scene.sizes, scene.ready, _on_ladder(before.numbers, spec)))


def _is_changed(before: Plan, seen: Observed, fixed: bool = False) -> bool:
    """True if the spec is another than the running plan was made for; `fixed`: its mix is."""
    return not before.revision or before.binds != fixed or seen.generation != seen.status.get("observedGeneration")


def _on_ladder(numbers: Numbers, spec: PoolSpec) -> Numbers:
    """Workers at levels that the spec no longer has must move."""
    return {(group, level): which for (group, level), which in numbers.items() if level in spec.ladder.levels}


def describe(numbers: Numbers, base_steps: int) -> str:
    """Workers by level in short: `5x0 2x10 1x0/25`, most steps first."""
    counts: dict[str, int] = {}
    for (_, level), which in sorted(numbers.items(), key=lambda item: (-item[0][1].steps_run, item[0][1])):
        label = level.label(base_steps)
        counts[label] = counts.get(label, 0) + len(which)
    return " ".join(f"{count}x{label}" for label, count in counts.items())
