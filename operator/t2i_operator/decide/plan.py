"""The plan of a pool: keep the running one, or replace it.

Fixed: the mix that the spec asks for, laid out over all workers; it only changes with the spec, never with readiness.
Its shift map follows the reported demand (`t2i_policy.planning.fixed_mix`).
Auto: `t2i_policy.planning.loop.plan_step` on the demand that gateways report and the workers that are ready. What it
needs to go on is in `status.plan`, so a restarted operator decides as the one before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from t2i_api.plan import Numbers, PlanDocument, PlanError, parse_plan, place_workers
from t2i_api.pool import PoolSpec
from t2i_operator.clock import Instant, parse_instant
from t2i_operator.decide.demand import (
    current_demand,
    group_rates,
    measured_by_group,
    quiet_rps,
)
from t2i_operator.decide.types import DesiredPool, Observed
from t2i_policy.level import Level
from t2i_policy.planning.classes import build_classes
from t2i_policy.planning.fixed_mix import lay_out, rows_at_rest, with_shifts
from t2i_policy.planning.loop import Planning, PlanningRules, expected_rates, plan_step
from t2i_policy.planning.plan import GroupCapacity, Plan
from t2i_policy.planning.replan import PlannedFor, choose_replan

FIXED_MIX = "FixedMix"


@dataclass(frozen=True, slots=True)
class _PlanInputs:
    """The running plan, the spec's view of it, and who is there."""

    before: PlanDocument | None
    sizes: Mapping[str, int]
    ready: Mapping[str, frozenset[int]]

    @property
    def everybody(self) -> dict[str, frozenset[int]]:
        """All workers that the spec has, ready or not."""
        return {group: frozenset(range(size)) for group, size in self.sizes.items()}

    @property
    def revision(self) -> int:
        return self.before.revision if self.before else 0

    @property
    def numbers(self) -> Numbers:
        return self.before.numbers if self.before else {}


def running_plan(status: Mapping[str, object]) -> PlanDocument | None:
    """The plan in a status; None if there is none, or none that can be used."""
    plan = status.get("plan")
    if not isinstance(plan, Mapping):
        return None
    try:
        return parse_plan(plan)
    except PlanError:
        return None  # it is replaced by one that can be read


def _scene(desired: DesiredPool, seen: Observed) -> _PlanInputs:
    sizes = desired.spec.group_sizes
    return _PlanInputs(running_plan(seen.status), sizes, ready_numbers(seen, sizes))


def decide_plan(desired: DesiredPool, seen: Observed, now: Instant) -> PlanDocument | None:
    """The plan from now on; the same object if the running one stays, None while there is nothing to plan with."""
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
        return before is not None and choose_replan(_made_for(before), rates_rps, scene.sizes, now.unix_s).due
    groups = group_rates(desired, scene.ready, measured_by_group(seen.reports), desired.spec.slo.latency_s)
    if not groups:
        return False
    planned_for = _planning(before, _is_changed(before, seen)).planned_for
    rates_rps = _rates(desired, seen, scene, groups, now)
    workers = {group.name: group.num_workers for group in groups}
    return choose_replan(planned_for, rates_rps, workers, now.unix_s, PlanningRules().replan).due


def ready_numbers(seen: Observed, sizes: Mapping[str, int]) -> dict[str, frozenset[int]]:
    """Ready workers of each group; those beyond its size, and those that fail their requests, left out."""
    serving = [pod for pod in seen.workers if pod.ready and pod.name not in seen.failing]
    return {
        group: frozenset(
            pod.number for pod in serving if pod.group == group and pod.number is not None and pod.number < size
        )
        for group, size in sizes.items()
    }


def _fixed(desired: DesiredPool, seen: Observed, scene: _PlanInputs, now: Instant) -> PlanDocument:
    spec = desired.spec
    mix = lay_out(spec.fixed_workers, scene.sizes)
    numbers = place_workers(mix, scene.sizes, scene.everybody, scene.numbers)
    before, reason = scene.before, FIXED_MIX
    groups = _everybody(desired, seen, scene)
    rates_rps = _rates(desired, seen, scene, groups, now)
    classes = build_classes(spec.ladder, desired.profile, spec.slo.max_loss, spec.slo.harmless_loss)
    if before is not None and not _is_changed_mix(before, seen, numbers, rows_at_rest(mix, classes)):
        replan = choose_replan(_made_for(before), rates_rps, scene.sizes, now.unix_s)
        if not replan.due:
            return before
        reason = replan.reason
    plan = with_shifts(mix, groups, classes, rates_rps, PlanningRules().plan)
    return PlanDocument(scene.revision + 1, reason, plan, rates_rps, numbers, now.text, fixed=True)


def _is_changed_mix(
    before: PlanDocument, seen: Observed, numbers: Numbers, at_rest: Mapping[tuple[str, Level], float]
) -> bool:
    """True if the spec is another than the running plan was made for, a worker must move, or what the mix draws without
    demand is something else: a new measurement, or a plan of a version that did not say.
    """
    rows = {(name, level): share for (name, level), share in at_rest.items() if name not in before.rates_rps}
    known = {place: share for place, share in before.plan.shift_map.items() if place[0] not in before.rates_rps}
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


def _made_for(before: PlanDocument) -> PlannedFor:
    return PlannedFor(before.rates_rps, before.group_workers(), parse_instant(before.made_at))


def _planned(desired: DesiredPool, seen: Observed, scene: _PlanInputs, now: Instant) -> PlanDocument | None:
    spec, before = desired.spec, scene.before
    slo_s = spec.slo.latency_s
    groups = group_rates(desired, scene.ready, measured_by_group(seen.reports), slo_s)
    if not groups:
        return before  # nobody to plan with
    classes = build_classes(spec.ladder, desired.profile, spec.slo.max_loss, spec.slo.harmless_loss)
    planning = _planning(before, _is_changed(before, seen))
    demand = current_demand(seen, before, quiet_rps(spec, groups), now)
    after = plan_step(planning, classes, groups, demand, now.unix_s)
    if before is not None and (after.planned_for is planning.planned_for or after.plan is None):
        return before
    if after.plan is None or after.planned_for is None:
        return None
    numbers = place_workers(after.plan, scene.sizes, scene.ready, _on_ladder(scene.numbers, spec))
    return PlanDocument(after.revision, after.reason, after.plan, after.planned_for.rates_rps, numbers, now.text)


def _planning(before: PlanDocument | None, changed: bool) -> Planning:
    """The loop's state out of the document. After a change of the spec a new plan is due whatever the demand."""
    if before is None:
        return Planning()
    return Planning(before.plan, None if changed else _made_for(before), before.revision)


def _is_changed(before: PlanDocument | None, seen: Observed, fixed: bool = False) -> bool:
    """True if the spec is another than the running plan was made for; `fixed`: its mix is."""
    return before is None or before.fixed != fixed or seen.generation != seen.status.get("observedGeneration")


def _on_ladder(numbers: Numbers, spec: PoolSpec) -> Numbers:
    """Workers at levels that the spec no longer has must move."""
    return {(group, level): which for (group, level), which in numbers.items() if level in spec.ladder.levels}


def describe(plan: Plan | None, numbers: Numbers, base_steps: int) -> str:
    """Workers by level in short: `5x0 2x10 1x0/25`, most steps first."""
    if plan is None:
        return ""
    counts: dict[str, int] = {}
    for (_, level), which in sorted(numbers.items(), key=lambda item: (-item[0][1].steps_run, item[0][1])):
        label = level.label(base_steps)
        counts[label] = counts.get(label, 0) + len(which)
    return " ".join(f"{count}x{label}" for label, count in counts.items())
