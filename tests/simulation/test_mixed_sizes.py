"""A pool that draws images of several sizes, in virtual time: its word is kept, and the default size sees no change."""

from dataclasses import replace
from math import ceil

import pytest

from t2i_policy.policies import PromptAware
from t2i_policy.profile import step_time
from t2i_simulated_pools import poisson, simulated_pool, step_profile
from t2i_simulator.engine import simulate
from t2i_simulator.outcomes import Fate
from t2i_simulator.scenario import OtherSize, ServiceTarget
from t2i_simulator.stepping import SimulatedJob, SimulatedStepLoop

STEP_S = (0.3, 0.42, 0.54, 0.6)
MIXES = {
    "a few large ones": (OtherSize(0.1, 4.0),),
    "half of them small": (OtherSize(0.5, 0.3),),
    "small and large": (OtherSize(0.3, 0.4), OtherSize(0.3, 2.5)),
}


@pytest.mark.parametrize("sentence", MIXES)
@pytest.mark.parametrize("load", [0.5, 1.0, 1.5])
def test_admitted_images_of_all_sizes_are_in_time(sentence: str, load: float) -> None:
    """`load` is what comes, in full, over what the pool can do."""
    mix, workers, slo_s, num = MIXES[sentence], 4, 40.0, 1500
    mean_cost = sum(one.share * (one.step_cost - 1) for one in mix) + 1
    rate_rps = load * workers * len(STEP_S) / (10 * STEP_S[-1]) / mean_cost
    target = ServiceTarget(slo_s, max_loss=0.2, max_queued=256)
    scenario = simulated_pool(poisson(rate_rps, num), workers, step_profile(STEP_S, 0.1), target=target)
    outcomes = simulate(replace(scenario, other_sizes=mix), PromptAware())
    times = zip(outcomes.fates, outcomes.arrived_s, outcomes.finished_s, strict=True)
    assert not [at for fate, at, end in times if fate is Fate.SERVED and end - at > slo_s + 1e-9]
    assert outcomes.fates.count(Fate.EXPIRED) <= 0.01 * num
    if load < 1:
        assert outcomes.fates.count(Fate.SERVED) >= 0.95 * num


def test_places_and_owed_steps_count_the_size() -> None:
    """A large one takes the room of three; it may join beside two, and then none may."""
    loop = SimulatedStepLoop(STEP_S, 4)
    for number, cost in enumerate((1.0, 1.0, 3.0)):
        loop.join(SimulatedJob(number, 10, step_cost=cost), 0.0)
    assert (loop.running_places, loop.waiting_places, loop.steps_left(0)) == (5, 0, 50)
    loop.join(SimulatedJob(3, 10, step_cost=0.5), 0.0)
    assert (loop.running_places, loop.waiting_places, loop.steps_left(0)) == (5, 1, 55)
    assert loop.due_s == pytest.approx(10 * step_time(STEP_S, 5))
    assert len(loop.finish_due()) == 3
    assert (loop.running_places, loop.waiting_places) == (ceil(0.5), 0)
