"""Devices of unlike speed at a tight SLO: each image is placed where it is in time, whoever dies."""

import pytest

from t2i_policy.policies import PromptAware
from t2i_simulated_pools import LADDER, poisson, simulated_pool, step_profile
from t2i_simulator.engine import simulate
from t2i_simulator.faults import Fault
from t2i_simulator.outcomes import Fate
from t2i_simulator.scenario import Scenario, ServiceTarget
from t2i_simulator.workers import Group

FAST_STEP_S = (0.3, 0.36, 0.42, 0.48)  # by batch size
EACH, COUNT = 4, 800
CASES = {"all alive": (), "a slow one dies": (Fault("slow-0", 30.0),), "a fast one dies": (Fault("fast-0", 30.0),)}


def unlike(slower: float, load: float, slo_s: float, faults: tuple[Fault, ...]) -> Scenario:
    """Four fast workers and four slow ones; the load is of what all carry at the cheapest level."""
    fast, slow = step_profile(FAST_STEP_S), step_profile([slower * step_s for step_s in FAST_STEP_S])
    cheapest = min(level.steps_run for level in LADDER.levels)
    rate_rps = load * EACH * (1 + 1 / slower) * len(FAST_STEP_S) / FAST_STEP_S[-1] / cheapest
    target = ServiceTarget(slo_s, max_loss=0.2, max_queued=256)
    pool = simulated_pool(poisson(rate_rps, COUNT), profile=fast, faults=faults, target=target)
    return Scenario(
        pool.ladder,
        fast,
        (Group("fast", EACH, fast), Group("slow", EACH, slow)),
        target,
        pool.arrived_s,
        pool.make_neighbours,
        faults=faults,
    )


def test_requests_that_may_not_bend_wait_for_a_fast_one() -> None:
    """One fast and one slow worker, which would be late: the second comes while the first runs, and is in time."""
    fast, slow = step_profile((0.3,)), step_profile((0.9,))
    target = ServiceTarget(slo_s=6.5, max_loss=0.0, max_queued=8)
    pool = simulated_pool([0.0, 0.1, 0.2], profile=fast, target=target)
    groups = (Group("fast", 1, fast), Group("slow", 1, slow))
    outcomes = simulate(
        Scenario(pool.ladder, fast, groups, target, pool.arrived_s, pool.make_neighbours), PromptAware()
    )
    exact = [level == LADDER.exact for level in outcomes.levels]
    assert exact == [True, True, False]
    assert outcomes.fates == [Fate.SERVED, Fate.SERVED, Fate.SHED]
    assert outcomes.finished_s[1] == pytest.approx(6.0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("slower", [2.0, 3.0])
def test_no_image_is_late_on_unlike_devices(slower: float, case: str) -> None:
    """An exact image in a slow one's full batch takes longer than the SLO."""
    slo_s = 6.0
    for load in (0.4, 0.8):
        outcomes = simulate(unlike(slower, load, slo_s, CASES[case]), PromptAware())
        times = zip(outcomes.fates, outcomes.arrived_s, outcomes.finished_s, strict=True)
        late = sum(fate is Fate.SERVED and end - at > slo_s + 1e-9 for fate, at, end in times)
        assert late == 0
        assert outcomes.fates.count(Fate.SERVED) >= 0.93 * COUNT
