"""Demand and capacity: what gateways report, as the numbers that plans are made from.

Never plan for less because somebody was not heard. Without a report the demand of the running plan stands. Where some
gateways did not answer, those that did speak for them. One that is not ready gets no requests, so it says nothing of
demand. Demand below QUIET_FRACTION of what the pool makes at full steps counts as none: nothing needs to bend there. A
pool with a request now and then must not be planned anew each time.
"""

from collections.abc import Mapping, Sequence

from t2i_api.pool import PoolSpec
from t2i_operator.decide.types import DemandReport, DesiredPool, Holding, MeasuredProfile, Observed
from t2i_policy.planning.capacity import worker_rate_rps
from t2i_policy.planning.plan import GroupCapacity, Plan
from t2i_policy.profile import LevelProfile

QUIET_FRACTION = 0.1
QUIET_RPS = 0.02  # a request in 50 seconds


def current_rates(seen: Observed, before: Plan, quiet_rps: float) -> Mapping[str, float]:
    """Requests/s by class: the reports summed, for gateways that did not answer too."""
    reports = [report for report in seen.reports if report.ready]
    if not reports:
        return before.rates_rps
    scale = max(1.0, sum(gateway.ready for gateway in seen.gateways) / len(reports))
    rates: dict[str, float] = {}
    for report in reports:
        for name, rate in report.rates_rps.items():
            rates[name] = rates.get(name, 0.0) + scale * rate
    if sum(rates.values()) < quiet_rps:
        return {}
    return {name: round(rate, 3) for name, rate in rates.items() if rate >= 0.001}


def quiet_rps(spec: PoolSpec, groups: Sequence[GroupCapacity]) -> float:
    """Below this, in requests/s, there is no demand worth a plan."""
    return max(QUIET_RPS, QUIET_FRACTION * _exact_rps(spec, groups))


def _exact_rps(spec: PoolSpec, groups: Sequence[GroupCapacity]) -> float:
    return sum(group.num_workers * group.rates_rps.get(spec.ladder.exact, 0.0) for group in groups)


def measured_by_group(reports: Sequence[DemandReport]) -> dict[Holding, MeasuredProfile]:
    """What workers measured, as the first gateway that knows the group and model reports it."""
    found: dict[Holding, MeasuredProfile] = {}
    for report in reports:
        found = {**report.measured, **found}
    return found


def group_rates(
    desired: DesiredPool, serving: Mapping[Holding, frozenset[int]], measured: Mapping[Holding, MeasuredProfile]
) -> tuple[GroupCapacity, ...]:
    """What the workers of each group make at levels of the model that they serve: by their measurements, before any by
    the profile."""
    spec = desired.spec
    return tuple(
        GroupCapacity(
            group,
            len(numbers),
            {
                level: worker_rate_rps(known.step_s, known.fixed_s, level, spec.slo.latency_s)
                for level in spec.ladder.levels
                if level.model == model
            },
            model,
        )
        for (group, model), numbers in sorted(serving.items())
        if numbers
        for known in [measured.get((group, model)) or measured_by_profile(desired.profile, model)]
    )


def measured_by_profile(profile: LevelProfile, model: str) -> MeasuredProfile:
    """What holds until the workers themselves have measured.

    Raises:
        ProfileError: the model was not measured.
    """
    section = profile.section(model)
    return MeasuredProfile(section.step_s, section.fixed_s)
