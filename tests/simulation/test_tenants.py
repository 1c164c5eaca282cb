"""Two tenants on one pool in virtual time: a flood of one is its own affair."""

from collections import Counter
from dataclasses import replace
from math import inf

import pytest

from t2i_policy.policies import PromptAware
from t2i_simulated_pools import LADDER, poisson, simulated_pool, step_profile
from t2i_simulator.dispatching import TOLD_EVERY_S
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


def calm_at_one(calm: float, weight: float, hears_every_s: tuple[float, ...]) -> Scenario:
    """The calm tenant uses the first gateway only, the flooding one all."""
    gateways = len(hears_every_s)
    scenario = two_tenants(calm, 3.0, weight, gateways)
    at_one = replace(scenario.tenants[CALM], gateway_shares=(1.0, *[0.0] * (gateways - 1)))
    return replace(scenario, tenants=(at_one, scenario.tenants[FLOOD]), hears_every_s=hears_every_s)


@pytest.mark.parametrize("gateways", [2, 4])
@pytest.mark.parametrize(("calm", "weight"), [(0.4, 1.0), (0.2, 3.0)])
def test_tenant_at_one_gateway_is_in_time_while_another_floods_all(calm: float, weight: float, gateways: int) -> None:
    """The other gateways leave it the slots that its share needs."""
    scenario = calm_at_one(calm, weight, (TOLD_EVERY_S,) * gateways)
    assert fates_of(simulate(scenario, PromptAware()), scenario, CALM)["in time"] >= 99


STALE_S, BEGUN_ANEW = 5.0, inf
BEHIND = {
    "both are stale": ((STALE_S, STALE_S), 98),
    "its own is stale": ((STALE_S, TOLD_EVERY_S), 98),
    "the other is stale": ((TOLD_EVERY_S, STALE_S), 98),
    "four are stale": ((STALE_S,) * 4, 70),
    "its own began anew": ((BEGUN_ANEW, TOLD_EVERY_S), 0),
    "the other began anew": ((TOLD_EVERY_S, BEGUN_ANEW), 0),
    "one of four began anew": ((*(TOLD_EVERY_S,) * 3, BEGUN_ANEW), 0),
}


@pytest.mark.parametrize("case", BEHIND)
@pytest.mark.parametrize(("calm", "weight"), [(0.4, 1.0), (0.2, 3.0)])
def test_gateways_that_know_little_of_tenants_are_no_worse_than_without(calm: float, weight: float, case: str) -> None:
    """Where nobody tells, chance says whose turn it is. Every request ends, and few come late."""
    hears_every_s, at_least = BEHIND[case]
    chance = calm_at_one(calm, weight, (BEGUN_ANEW,) * len(hears_every_s))
    scenario = replace(chance, hears_every_s=hears_every_s)
    outcomes = simulate(scenario, PromptAware())
    assert Fate.OPEN not in outcomes.fates
    fates, by_chance = fates_of(outcomes, scenario, CALM), fates_of(simulate(chance, PromptAware()), chance, CALM)
    assert fates["in time"] >= max(at_least, by_chance["in time"])
    assert fates["late"] + fates["EXPIRED"] <= 2 + by_chance["late"] + by_chance["EXPIRED"]
