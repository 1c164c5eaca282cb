"""The simulation as a whole: nothing is lost or invented, the same seed gives the same run, queueing theory agrees."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_policy.policies import PromptAware
from t2i_policy.request.admission import RefusedReason
from t2i_simulated_pools import DRAWN, LADDER, STEPS, ExactOnly, poisson, simulated_pool, step_profile
from t2i_simulator.engine import simulate
from t2i_simulator.faults import Fault
from t2i_simulator.neighbours import DrawnNeighbours
from t2i_simulator.outcomes import Fate, Outcomes
from t2i_simulator.report import Row, Setting, measure, summarise
from t2i_simulator.rivals.proteus import Proteus
from t2i_simulator.scenario import Scenario, ServiceTarget
from t2i_simulator.true_loss import Truth

PATIENT = ServiceTarget(slo_s=1e6, max_loss=0.2, max_queued=10**6)


def row_of(scenario: Scenario, outcomes: Outcomes) -> Row:
    """Judged by the scenario's own profile."""
    setting = Setting("trace", scenario.ladder, scenario.target.slo_s, 1, range(len(outcomes.fates)))
    return summarise("policy", outcomes, setting, measure(outcomes, setting, Truth(scenario.profile)))


FAULTS = st.tuples(st.integers(0, 3), st.floats(0, 100), st.floats(1, 60), st.sampled_from([None, 2.0, 20.0, 1e5]))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.floats(0.05, 3.0), st.integers(1, 4), st.integers(0, 10), st.lists(FAULTS, max_size=4))
def test_every_request_ends_exactly_once(
    rate: float, workers: int, max_queued: int, faults: list[tuple[int, float, float, float | None]]
) -> None:
    """Offered = served + shed + failed under any load, queue bound, deaths and slow workers."""
    made = tuple(Fault(f"gpu-{w % workers}", at, at + lasts, slow) for w, at, lasts, slow in faults)
    target = ServiceTarget(30.0, 0.2, max_queued)
    scenario = simulated_pool(poisson(rate, 60), workers, step_profile(fixed_s=0.5), made, target)
    outcomes = simulate(scenario, PromptAware())
    fates = Counter(outcomes.fates)
    assert fates[Fate.OPEN] == 0
    assert sum(outcomes.refusals.values()) == fates[Fate.SHED]
    for level, fate in zip(outcomes.levels, outcomes.fates, strict=True):
        assert (level is not None) == (fate is Fate.SERVED)
    row = row_of(scenario, outcomes)
    assert row.offered == row.served + row.shed + row.failed
    assert row.violation_percent == pytest.approx(100 * (row.late + row.shed + row.failed) / row.offered)


def test_same_seed_same_run() -> None:
    """Every column is equal, twice in one process."""
    scenario = simulated_pool(poisson(0.6, 400), faults=(Fault("gpu-1", 50.0, 90.0), Fault("gpu-0", 150.0, 200.0, 9.0)))
    one, other = simulate(scenario, PromptAware()), simulate(scenario, PromptAware())
    assert one == other


def test_waiting_time_is_that_of_an_md1_queue() -> None:
    """One worker, batch 1, ten steps of one second at load 0.7: Pollaczek and Khinchine say 11.67 s of waiting."""
    load, service_s, num = 0.7, 1.0 * STEPS, 10_000
    scenario = simulated_pool(poisson(load / service_s, num), 1, step_profile((1.0,)), target=PATIENT)
    outcomes = simulate(scenario, ExactOnly())
    waits = [end - at - service_s for end, at in zip(outcomes.finished_s, outcomes.arrived_s, strict=True)]
    assert sum(waits) / num == pytest.approx(load * service_s / (2 * (1 - load)), rel=0.1)


def test_throughput_at_saturation_is_the_full_batch() -> None:
    """Two workers that never idle make two full batches of two in 10 x 1.2 s."""
    scenario = simulated_pool([0.0] * 200, 2, target=PATIENT)
    outcomes = simulate(scenario, ExactOnly())
    assert max(outcomes.finished_s) == pytest.approx(200 / 4 * STEPS * 1.2)


def test_dying_worker_loses_nothing() -> None:
    """What it held, an image on its way out included, is drawn elsewhere within the SLO."""
    faults = (Fault("gpu-0", 10.2, 60.0),)
    scenario = simulated_pool([0.0, 0.0, 1.0, 2.0], 2, step_profile(fixed_s=0.5), faults)
    outcomes = simulate(scenario, ExactOnly())
    assert set(outcomes.fates) == {Fate.SERVED}
    assert sum(outcomes.retries) > 0
    assert all(end > 10.2 + 10 for end, tries in zip(outcomes.finished_s, outcomes.retries, strict=True) if tries)


def test_no_worker_left_fails_who_waits_and_refuses_who_comes() -> None:
    """Requests are not kept for ever: those of the only worker fail at once, later ones are told that there is none."""
    scenario = simulated_pool([0.0, 0.5, 20.0], 1, faults=(Fault("gpu-0", 5.0),))
    outcomes = simulate(scenario, ExactOnly())
    assert outcomes.fates == [Fate.LOST, Fate.LOST, Fate.SHED]
    assert outcomes.refusals == {RefusedReason.NO_WORKERS: 1}


def test_worker_that_comes_back_is_used_again() -> None:
    """Dead for a while, then it shares the load: more is served than by the other alone."""
    times = poisson(0.25, 150)
    back, gone = (
        row_of(scenario, simulate(scenario, ExactOnly()))
        for scenario in (
            simulated_pool(times, 2, faults=(Fault("gpu-0", 30.0, 60.0),)),
            simulated_pool(times, 2, faults=(Fault("gpu-0", 30.0),)),
        )
    )
    assert back.violation_percent < gone.violation_percent


@pytest.mark.parametrize(("slowdown", "ejected"), [(2.0, False), (8.0, True), (1e5, True)])
def test_slow_or_frozen_worker_is_ejected(slowdown: float, ejected: bool) -> None:
    """Three times slower than it measured itself is a fault; twice is not; a frozen one is found by its silence."""
    profile = step_profile((0.2, 0.25))
    scenario = simulated_pool(poisson(0.5, 200), 3, profile, (Fault("gpu-1", 20.0, 200.0, slowdown),))
    outcomes = simulate(scenario, PromptAware())
    assert (outcomes.ejections > 0) == ejected


def test_worker_that_freezes_while_it_is_idle_is_ejected() -> None:
    """None of its steps ever ends: the age of the first one tells."""
    faults = (Fault("gpu-0", 0.5, 200.0, 1e5),)
    scenario = simulated_pool([1.0, 1.0, 1.0, 1.0], 2, step_profile((0.2, 0.25)), faults)
    assert simulate(scenario, PromptAware()).ejections > 0


class _Recorded(DrawnNeighbours):
    """Whose images were stored."""

    stored: tuple[int, ...] = ()

    def store(self, request: int, now_s: float) -> None:
        self.stored += (request,)


def test_only_exact_images_are_stored() -> None:
    """As live: latents of an approximated run would pass its loss on to the next."""
    scenario = simulated_pool(poisson(0.6, 100))
    cache = _Recorded(DRAWN, LADDER.skips, 100, 0)
    outcomes = simulate(replace(scenario, make_neighbours=lambda: cache), PromptAware())
    exact = [number for number, level in enumerate(outcomes.levels) if level == LADDER.exact]
    assert sorted(cache.stored) == exact
    assert 0 < len(exact) < len(outcomes.levels)


def test_unknown_worker_in_a_fault_is_an_error() -> None:
    """A typo must not simulate a sound pool."""
    with pytest.raises(KeyError, match="gpu-9"):
        simulate(simulated_pool([0.0], faults=(Fault("gpu-9", 1.0),)), PromptAware())


def test_admission_reckons_with_the_line_of_one_level() -> None:
    """Workers stand at levels and a request waits for its own; admission refuses what would be late in that line.

    By the queue and the rate of the whole pool it lets in 23 late ones, many times as many.
    """
    outcomes = simulate(simulated_pool(poisson(1.5, 600), workers=6), Proteus())
    served = [number for number, fate in enumerate(outcomes.fates) if fate is Fate.SERVED]
    late = [at for at in served if outcomes.finished_s[at] - outcomes.arrived_s[at] > 30.0]
    assert len(served) > 550
    assert len(late) <= 5
