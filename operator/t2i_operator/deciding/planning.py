"""The plan of a pool: keep the running one, or replace it.

Fixed: the mix that the spec asks for, laid out over all workers; it only changes with the spec, never with readiness.
Auto: `t2i_policy.planning.plan_step` on the demand that gateways report and the workers that are ready. Everything it
needs to go on is in `status.plan`, so a restarted operator decides as the one before it.

Never plan for less because somebody was not heard: without a report the demand of the running plan stands, and where
some gateways did not answer, those that did speak for them. Demand below QUIET of what the pool makes at full steps
counts as none: nothing needs to bend there, and a pool with a request now and then must not be planned anew each time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from t2i_operator.deciding.observed import DemandReport, Measured, Observed, Wanted
from t2i_operator.instants import Now, parse_instant
from t2i_policy.capacity import worker_rate_rps
from t2i_policy.classes import build_classes
from t2i_policy.demand import Demand
from t2i_policy.plan import GroupCapacity, Plan
from t2i_policy.plan_document import Numbers, PlanDocument, PlanError, fixed_plan, parse_plan, place_workers
from t2i_policy.planning import Planning, plan_step
from t2i_policy.pool import PoolSpec
from t2i_policy.profile import LevelProfile
from t2i_policy.replan import PlannedFor

QUIET_FRACTION = 0.1
QUIET_RPS = 0.02  # a request in 50 seconds
FIXED_MIX = "FixedMix"


@dataclass(frozen=True, slots=True)
class _Scene:
    """The running plan, the spec's view of it, and who is there."""

    before: PlanDocument | None
    sizes: Mapping[str, int]
    ready: Mapping[str, frozenset[int]]

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


def decide_plan(wanted: Wanted, seen: Observed, now: Now) -> PlanDocument | None:
    """The plan from now on; the same object if the running one stays, None while there is nothing to plan with."""
    sizes = {group.name: group.workers for group in wanted.spec.worker_groups}
    scene = _Scene(running_plan(seen.status), sizes, ready_numbers(seen, sizes))
    if wanted.spec.mix.mode == "Fixed":
        return _fixed(wanted.spec, scene, now)
    return _planned(wanted, seen, scene, now)


def ready_numbers(seen: Observed, sizes: Mapping[str, int]) -> dict[str, frozenset[int]]:
    """Ready workers of each group, those beyond its size left out."""
    return {
        group: frozenset(
            pod.number
            for pod in seen.workers
            if pod.ready and pod.group == group and pod.number is not None and pod.number < size
        )
        for group, size in sizes.items()
    }


def _fixed(spec: PoolSpec, scene: _Scene, now: Now) -> PlanDocument:
    plan = fixed_plan(spec.fixed_workers, scene.sizes)
    everybody = {group: frozenset(range(size)) for group, size in scene.sizes.items()}
    numbers = place_workers(plan, scene.sizes, everybody, scene.numbers)
    before = scene.before
    if before is not None and before.fixed and before.plan.workers == plan.workers and before.numbers == numbers:
        return before
    return PlanDocument(scene.revision + 1, FIXED_MIX, plan, {}, numbers, now.text, fixed=True)


def _planned(wanted: Wanted, seen: Observed, scene: _Scene, now: Now) -> PlanDocument | None:
    spec, before = wanted.spec, scene.before
    slo_s = spec.slo.latency_s
    groups = group_rates(wanted, scene.ready, measured_by_group(seen.reports), slo_s)
    if not groups:
        return before  # nobody to plan with
    classes = build_classes(spec.ladder, wanted.profile, spec.slo.max_loss, spec.slo.harmless_loss)
    changed = before is None or before.fixed or seen.generation != seen.status.get("observedGeneration")
    planning = _planning(before, changed)
    quiet_rps = max(QUIET_RPS, QUIET_FRACTION * _exact_rps(spec, groups))
    demand = current_demand(seen, before, quiet_rps, now)
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
    planned_for = PlannedFor(before.rates_rps, before.group_workers(), parse_instant(before.made_at))
    return Planning(before.plan, None if changed else planned_for, before.revision)


def _on_ladder(numbers: Numbers, spec: PoolSpec) -> Numbers:
    """Workers at levels that the spec no longer has must move."""
    return {(group, level): which for (group, level), which in numbers.items() if level in spec.ladder.levels}


def _exact_rps(spec: PoolSpec, groups: Sequence[GroupCapacity]) -> float:
    return sum(group.num_workers * group.rates_rps.get(spec.ladder.exact, 0.0) for group in groups)


def measured_by_group(reports: Sequence[DemandReport]) -> dict[str, Measured]:
    """What workers measured, as the first gateway that knows the group reports it."""
    found: dict[str, Measured] = {}
    for report in reports:
        found = {**report.measured, **found}
    return found


def group_rates(
    wanted: Wanted, ready: Mapping[str, frozenset[int]], measured: Mapping[str, Measured], slo_s: float
) -> tuple[GroupCapacity, ...]:
    """What the ready workers of each group make: by their measurements, before any by the profile."""
    by_profile = _from_profile(wanted.profile)
    return tuple(
        GroupCapacity(
            group,
            len(numbers),
            {level: worker_rate_rps(known.step_s, known.fixed_s, level, slo_s) for level in wanted.spec.ladder.levels},
        )
        for group, numbers in sorted(ready.items())
        if numbers
        for known in [measured.get(group, by_profile)]
    )


def _from_profile(profile: LevelProfile) -> Measured:
    return Measured(profile.step_s, profile.fixed_s)


def current_demand(seen: Observed, before: PlanDocument | None, quiet_rps: float, now: Now) -> Demand:
    """The reports summed, for gateways that did not answer too; see the module."""
    if not seen.reports:
        rates = before.rates_rps if before is not None else {}
        return Demand.from_rates(rates, sum(rates.values()), now.unix_s)
    scale = max(1.0, sum(gateway.ready for gateway in seen.gateways) / len(seen.reports))
    rates = {}
    for report in seen.reports:
        for name, rate in report.rates_rps.items():
            rates[name] = rates.get(name, 0.0) + scale * rate
    if sum(rates.values()) < quiet_rps:
        return Demand.from_rates({}, 0.0, now.unix_s)
    whole = {name: round(rate, 3) for name, rate in rates.items() if rate >= 0.001}
    return Demand.from_rates(whole, scale * sum(report.earlier_rps for report in seen.reports), now.unix_s)


def describe(plan: Plan | None, numbers: Numbers, base_steps: int) -> str:
    """Workers by level in short: `5x0 2x10 1x0/25`, most steps first."""
    if plan is None:
        return ""
    counts: dict[str, int] = {}
    for (_, level), which in sorted(numbers.items(), key=lambda item: (-item[0][1].steps_run, item[0][1])):
        label = level.label(base_steps)
        counts[label] = counts.get(label, 0) + len(which)
    return " ".join(f"{count}x{label}" for label, count in counts.items())
