"""A batch grows no further than the deadlines of those in it bear, so who is admitted is in time."""

import asyncio
from dataclasses import replace
from math import inf

import pytest
from prometheus_client import CollectorRegistry

from played_workers import CAP, STEPS, World, turns, world
from small_pools import EXACT, K25, worker
from t2i_api.gateway import GatewayPart
from t2i_gateway.attempt import Attempt
from t2i_gateway.dispatch import Dispatcher, QueuePlace
from t2i_gateway.errors import RequestRefused
from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.batch_limit import NO_LIMIT, OwedSteps, batch_limit, longest_step_s
from t2i_policy.level import Level
from t2i_policy.policies import PromptAware
from t2i_policy.pool_view import PoolView
from t2i_policy.request.placement import choose_worker
from t2i_simulated_pools import poisson, simulated_pool, step_profile
from t2i_simulator.engine import simulate
from t2i_simulator.outcomes import Fate
from t2i_simulator.scenario import ServiceTarget

SHORT = Level(0, 1)
STEP_S = (0.1, 0.15, 0.2)
LONGEST = {
    "nobody": ([], inf),
    "the most urgent counts": ([(10.0, 50), (3.0, 20)], 0.15),
    "whose deadline has passed cannot be helped": ([(-1.0, 5), (4.0, 20)], 0.2),
    "who is far too late neither": ([(0.8, 10), (4.0, 20)], 0.2),
    "who is a little late may be yet": ([(0.95, 10), (4.0, 20)], 0.095),
    "whose steps are done waits for none": ([(0.5, 0)], inf),
}
LIMITS = {
    "longer than any": (0.3, NO_LIMIT),
    "just the full batch": (0.2, NO_LIMIT),
    "a batch of two": (0.19, 2),
    "just two": (0.15, 2),
    "too short for one alone": (0.05, 1),
}


@pytest.mark.parametrize("case", LONGEST)
def test_longest_step_is_the_most_urgent_ones(case: str) -> None:
    """Time left over steps left, of those that can still be in time."""
    owed, expected_s = LONGEST[case]
    assert longest_step_s([OwedSteps(*one) for one in owed], present_s=0.1) == pytest.approx(expected_s)


@pytest.mark.parametrize("case", LIMITS)
def test_limit_is_the_largest_batch_with_no_longer_step(case: str) -> None:
    """By the worker's own step times."""
    longest_s, expected = LIMITS[case]
    assert batch_limit(STEP_S, longest_s) == expected
    assert batch_limit((), longest_s) == NO_LIMIT  # it has not told its step times


def test_request_goes_where_it_makes_nobody_late() -> None:
    """Two of four slots are taken at both; one worker's may not be slowed down, though it is the fuller one."""
    urgent, other = replace(worker("a", 3), batch_limit=3), worker("b", 2)
    assert urgent.free_slots == 0
    placement = choose_worker([urgent, other], K25, 60.0, occupancy=1.0)
    assert placement is not None
    assert placement.worker == "b"
    assert choose_worker([urgent], K25, 60.0, occupancy=1.0) is None  # it waits until another leaves
    assert urgent.finish_s(10) > replace(urgent, batch_limit=NO_LIMIT).finish_s(10)


def test_estimate_is_of_the_slot_that_it_gets() -> None:
    """A free slot is taken at once, so a busy worker that would be as fast later does not count."""
    slow = replace(worker("slow", 1), step_s=(1.0,) * 4)
    full = replace(worker("fast", 4, steps_left=4))
    assert PoolView((slow, full), 0, 0).best_finish_s(EXACT.steps_run) == slow.finish_s(EXACT.steps_run)
    only_full = PoolView((full, replace(slow, running=4)), 0, 0)
    assert only_full.best_finish_s(EXACT.steps_run) == full.finish_s(EXACT.steps_run)


@pytest.mark.parametrize("rate_rps", [1.5, 2.0, 2.5])
def test_admitted_images_are_in_time_at_a_tight_slo(rate_rps: float) -> None:
    """Most may not bend, and in a full batch an exact image would take longer than the SLO."""
    arrived_s, slo_s = poisson(rate_rps, 1500), 5.5
    profile, target = step_profile((0.3, 0.42, 0.54, 0.6)), ServiceTarget(slo_s, max_loss=0.005, max_queued=256)
    outcomes = simulate(simulated_pool(arrived_s, 4, profile, target=target), PromptAware())
    times = zip(outcomes.fates, outcomes.arrived_s, outcomes.finished_s, strict=True)
    assert not [at for fate, at, end in times if fate is Fate.SERVED and end - at > slo_s + 1e-9]
    assert outcomes.fates.count(Fate.EXPIRED) <= 0.01 * len(arrived_s)
    assert outcomes.fates.count(Fate.SERVED) >= 0.9 * len(arrived_s)


async def _told(played: World, longest_step_ms: float) -> None:
    played.first.load.longest_step_ms = longest_step_ms
    played.first.say()
    await turns()


async def test_gateway_knows_what_its_own_requests_bear() -> None:
    """As time goes on faster than steps, fewer may join; a request without haste limits nothing."""
    async with world() as played:
        full_s = played.first.load.step_ms[-1] / 1e3
        played.connection.take_slot(STEPS)
        assert played.connection.view.free_slots == CAP - 1
        played.connection.take_slot(STEPS, played.now_s + STEPS * full_s * 0.8)
        assert played.connection.view.free_slots == 1  # a batch of three takes three quarters of a full one's step
        played.now_s += 5 * full_s
        played.connection.changed()
        assert played.connection.view.free_slots == 0


async def test_gateway_hears_what_the_requests_of_others_bear() -> None:
    """The worker tells it, and takes it back when they are done."""
    async with world(alone=False) as played:
        played.first.load.running = 1
        await _told(played, played.first.load.step_ms[1])
        assert played.connection.view.free_slots == 1
        await _told(played, 0.0)
        assert played.connection.view.free_slots == CAP - 1


async def test_request_whose_turn_comes_too_late_is_refused_with_a_hint() -> None:
    """It waited longer than expected. It hears so before it costs a step, and the next in line gets the slot."""
    async with world() as played:
        dispatcher = Dispatcher(PromptAware(), played.pool, GatewayPart(), GatewayMetrics(CollectorRegistry()))
        now_s = asyncio.get_running_loop().time()
        held = [one.take_slot(STEPS) for one in played.pool.connections for _ in range(CAP)]
        too_late = QueuePlace("tenant", Level(0, 10_000), now_s + 100.0)
        waiting = [asyncio.create_task(dispatcher.attempt(one)) for one in (too_late, replace(too_late, level=SHORT))]
        await turns()
        played.connection.leave_slot(held[0])
        await turns()
        refused, attempt = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(refused, RequestRefused)
        assert refused.refused.retry_after_s
        assert isinstance(attempt, Attempt)


async def test_request_that_waits_is_refused_once_no_worker_could_be_in_time() -> None:
    """Not at its deadline, a minute later: its client hears as soon as can be that it has to come back."""
    async with world() as played:
        dispatcher = Dispatcher(PromptAware(), played.pool, GatewayPart(), GatewayMetrics(CollectorRegistry()))
        for one in played.pool.connections:
            for _ in range(CAP):
                one.take_slot(STEPS)
        level = Level(0, 60_000)
        alone_s = dispatcher.view().alone_s(level.cost)
        deadline_s = asyncio.get_running_loop().time() + alone_s + 0.01
        with pytest.raises(RequestRefused) as refused:
            await dispatcher.attempt(QueuePlace("tenant", level, deadline_s))
        assert refused.value.refused.retry_after_s
        assert deadline_s - asyncio.get_running_loop().time() > alone_s / 2
        assert not dispatcher.num_queued


async def test_who_joins_a_batch_waits_for_the_end_of_its_step() -> None:
    """A gateway hears of a free place when the next step has begun; one that has no time for that step is refused."""
    async with world() as played:
        dispatcher = Dispatcher(PromptAware(), played.pool, GatewayPart(), GatewayMetrics(CollectorRegistry()))
        for one in played.pool.connections:
            one.take_slot(STEPS)
        view, idle = played.connection.view, replace(played.connection.view, running=0, boundary_s=0.0)
        assert view.boundary_s == idle.join_step_s
        run_s = 10_000 * view.join_step_s
        assert view.finish_s(10_000) == view.rest_s + run_s == pytest.approx(run_s + view.boundary_s)
        deadline_s = asyncio.get_running_loop().time() + run_s + view.boundary_s / 2
        with pytest.raises(RequestRefused):
            await dispatcher.attempt(QueuePlace("tenant", Level(0, 10_000), deadline_s))
