"""Two tenants on one pool in virtual time: a flood of one is its own affair."""

from collections import Counter
from dataclasses import replace

import pytest

from t2i_policy.policies import PromptAware
from t2i_simulated_pools import LADDER, poisson, simulated_pool, step_profile
from t2i_simulator.engine import simulate
from t2i_simulator.outcomes import Fate, Outcomes
from t2i_simulator.scenario import Scenario, ServiceTarget, SimulatedTenant

STEP_S = (0.3, 0.36, 0.42, 0.48)  # by batch size
SLO_S, WORKERS, SECONDS = 6.0, 8, 60.0
TARGET = ServiceTarget(SLO_S, max_loss=0.6, max_queued=256)
CAPACITY_RPS = WORKERS * len(STEP_S) / STEP_S[-1] / min(level.steps_run for level in LADDER.levels)
CALM, FLOOD = 0, 1


def two_tenants(calm: float, flood: float, weight: float = 1.0, gateways: int = 1) -> Scenario:
    """Poisson at these loads of what the workers make at the cheapest level; the flooding one weighs `weight`."""
    loads = {CALM: calm, FLOOD: flood}
    arrivals = sorted(
        (at_s, place)
        for place, load in loads.items()
        for at_s in poisson(load * CAPACITY_RPS, int(load * CAPACITY_RPS * SECONDS), seed=place)
    )
    pool = simulated_pool([at_s for at_s, _ in arrivals], WORKERS, step_profile(STEP_S), target=TARGET)
    tenants = (SimulatedTenant("calm"), SimulatedTenant("flood", weight))
    return replace(pool, gateways=gateways, tenants=tenants, tenant_of=[place for _, place in arrivals])


def fates_of(outcomes: Outcomes, scenario: Scenario, place: int) -> Counter[str]:
    """In time, late, or how it failed, in percent of the tenant's requests."""
    times = zip(outcomes.fates, outcomes.arrived_s, outcomes.finished_s, scenario.tenant_of, strict=True)
    ends = Counter(
        ("in time" if end - at <= SLO_S else "late") if fate is Fate.SERVED else fate.name
        for fate, at, end, who in times
        if who == place
    )
    return Counter({end: 100 * count / ends.total() for end, count in ends.items()})


@pytest.mark.parametrize("gateways", [1, 2])
@pytest.mark.parametrize(("calm", "weight"), [(0.4, 1.0), (0.2, 3.0)])
def test_tenant_within_its_share_is_in_time_while_another_floods(calm: float, weight: float, gateways: int) -> None:
    """Refusals fall on the one that asks for three times the pool; without tenants they fall on both."""
    scenario = two_tenants(calm, 3.0, weight, gateways)
    outcomes = simulate(scenario, PromptAware())
    assert fates_of(outcomes, scenario, CALM)["in time"] == 100
    assert fates_of(outcomes, scenario, FLOOD)["SHED"] >= 60
    nameless = replace(scenario, tenants=(SimulatedTenant(), SimulatedTenant()))
    assert fates_of(simulate(nameless, PromptAware()), nameless, CALM)["in time"] <= 50


@pytest.mark.parametrize("gateways", [1, 2])
def test_flooding_tenant_is_refused_at_once_and_not_served_late(gateways: int) -> None:
    """Its wait counts what the other will take meanwhile, though hardly anything of the other's ever waits."""
    scenario = two_tenants(0.4, 3.0, gateways=gateways)
    flood = fates_of(simulate(scenario, PromptAware()), scenario, FLOOD)
    assert flood["in time"] >= 80 * 0.6 / 3.0
    assert flood["late"] + flood["EXPIRED"] <= 8
