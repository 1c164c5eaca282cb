"""Several gateways on one pool in virtual time: together they refuse what they cannot serve, as one gateway does."""

from collections import Counter
from dataclasses import replace
from math import inf

import pytest

from t2i_policy.policies import PromptAware
from t2i_simulated_pools import LADDER, poisson, simulated_pool, step_profile
from t2i_simulator.engine import simulate
from t2i_simulator.faults import Fault
from t2i_simulator.outcomes import Fate, Outcomes
from t2i_simulator.scenario import ServiceTarget

STEP_S = (0.3, 0.36, 0.42, 0.48)  # by batch size
SLO_S, WORKERS, SECONDS = 6.0, 8, 60.0
TARGET = ServiceTarget(SLO_S, max_loss=0.6, max_queued=256)


def simulated(
    load: float, gateways: int, shares: tuple[float, ...] = (), hears_every_s: tuple[float, ...] = ()
) -> Outcomes:
    """Poisson at `load` of what the workers make in full batches at the cheapest level."""
    cheapest = min(level.steps_run for level in LADDER.levels)
    rate_rps = load * WORKERS * len(STEP_S) / STEP_S[-1] / cheapest
    arrived_s = poisson(rate_rps, int(rate_rps * SECONDS))
    scenario = simulated_pool(arrived_s, WORKERS, step_profile(STEP_S), target=TARGET)
    shared = replace(scenario, gateways=gateways, gateway_shares=shares, hears_every_s=hears_every_s)
    return simulate(shared, PromptAware())


def percent_in_time(outcomes: Outcomes) -> float:
    """Images within the SLO, of all requests."""
    times = zip(outcomes.fates, outcomes.arrived_s, outcomes.finished_s, strict=True)
    good = sum(fate is Fate.SERVED and end - at <= SLO_S for fate, at, end in times)
    return 100 * good / len(outcomes.fates)


@pytest.mark.parametrize("gateways", [2, 4, 8])
def test_overload_is_refused_and_does_not_expire(gateways: int) -> None:
    """At 1.25x of the cheapest level's capacity what cannot be served is refused on arrival, whoever is asked."""
    single, shared = simulated(1.25, 1), simulated(1.25, gateways)
    fates, num = Counter(shared.fates), len(shared.fates)
    assert fates[Fate.SHED] >= 0.9 * Counter(single.fates)[Fate.SHED]
    assert fates[Fate.EXPIRED] <= 0.03 * num
    assert percent_in_time(shared) >= percent_in_time(single) - 3
    assert percent_in_time(shared) + 100 * (fates[Fate.SHED] + fates[Fate.EXPIRED]) / num == pytest.approx(100, abs=0.1)


@pytest.mark.parametrize("gateways", [2, 4])
def test_pool_below_capacity_refuses_nothing(gateways: int) -> None:
    """Counting the others' queues must not refuse what fits."""
    assert percent_in_time(simulated(0.88, gateways)) == 100


@pytest.mark.parametrize("shares", [(1.0, 0.0), (0.9, 0.1)])
def test_clients_need_not_spread_evenly(shares: tuple[float, ...]) -> None:
    """One long-lived client keeps to one gateway: it gets what the pool can do, above and below its capacity."""
    assert percent_in_time(simulated(0.88, 2, shares)) == 100
    assert percent_in_time(simulated(1.25, 2, shares)) >= percent_in_time(simulated(1.25, 1)) - 4


STALE_S, BEGUN_ANEW = 5.0, inf
ONE_IS_BEHIND = {
    "one of two is stale": ((0.25, STALE_S), ()),
    "one of two began anew": ((0.25, BEGUN_ANEW), ()),
    "one of four began anew, another is stale": ((0.25, 0.25, STALE_S, BEGUN_ANEW), ()),
    "the one that most clients use began anew": ((BEGUN_ANEW, 0.25), (0.9, 0.1)),
    "the one that few clients use began anew": ((0.25, BEGUN_ANEW), (0.9, 0.1)),
}


@pytest.mark.parametrize("case", ONE_IS_BEHIND)
def test_gateway_that_knows_little_of_the_others_harms_nobody(case: str) -> None:
    """It refuses nothing below the pool's capacity, and above it the pool makes as many images in time, nearly."""
    hears_every_s, shares = ONE_IS_BEHIND[case]
    gateways = len(hears_every_s)
    assert percent_in_time(simulated(0.88, gateways, shares, hears_every_s)) == 100
    for load in (1.25, 1.75):
        single = percent_in_time(simulated(load, 1))
        assert percent_in_time(simulated(load, gateways, shares, hears_every_s)) >= single - 4


def test_every_request_ends_at_its_own_gateway() -> None:
    """With workers that die: offered = served + shed + failed, twice alike."""
    faults = (Fault("gpu-0", 30.0, 60.0), Fault("gpu-1", 50.0, 90.0))
    scenario = replace(simulated_pool(poisson(0.9, 200), faults=faults), gateways=3)
    outcomes = simulate(scenario, PromptAware())
    assert Counter(outcomes.fates)[Fate.OPEN] == 0
    assert outcomes == simulate(scenario, PromptAware())
