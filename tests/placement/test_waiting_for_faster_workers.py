"""Devices of unlike speed: whom the free ones are too slow for waits for a faster one, and holds up nobody."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from played_workers import CAP, World, turns, world
from small_pools import EXACT, K25, RULES, asks, worker
from t2i_api.gateway import GatewayPart
from t2i_gateway.attempt import Attempt
from t2i_gateway.dispatch import Dispatcher, QueuePlace
from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.level import Level
from t2i_policy.policies import PromptAware
from t2i_policy.pool_view import PoolView, WorkerView
from t2i_policy.request.admission import Admitted, Refused, RefusedReason, decide_admission
from t2i_policy.request.placement import choose_worker

FAST = worker("fast", 4, steps_left=40)  # all of its slots are taken, ten steps each
SLOW = replace(worker("slow"), step_s=tuple(4 * step_s for step_s in worker("slow").step_s))
LEFT_S = 20.0  # an exact image takes 4.2 s on an idle fast one, 16.8 s on a slow one, about that on FAST from now
TIGHT_S = 16.0
#: Workers, seconds left, whom it may not have; where an exact image goes, None: it waits.
CASES = {
    "the slow one is in time": ((FAST, SLOW), LEFT_S + 1, frozenset[str](), "slow"),
    "only the fast one will be": ((replace(FAST, running=2, batch_limit=2), SLOW), TIGHT_S, frozenset[str](), None),
    "neither will be": ((FAST, SLOW), 5.0, frozenset[str](), "slow"),
    "the fast one failed it": (
        (replace(FAST, running=2, batch_limit=2), SLOW),
        TIGHT_S,
        frozenset({"fast"}),
        "slow",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_where_an_exact_image_goes(case: str) -> None:
    workers, left_s, excluded, expected = CASES[case]
    placement = choose_worker(workers, EXACT, left_s, 0.5, excluded)
    assert (placement and placement.worker) == expected
    if expected == "slow" and left_s < LEFT_S:
        assert placement is not None
        assert placement.is_late(left_s), "nothing helps it: it is told at once"


def _pool(queued: int = 0, queued_steps: int = 0) -> PoolView:
    return PoolView((replace(FAST, running=2, batch_limit=2), SLOW), queued, queued_steps, ahead_steps=0)


def test_request_without_a_neighbour_is_admitted_to_wait() -> None:
    """It may not bend, and the slow one, which has slots, would be late."""
    decided = RULES.decide(asks(None, left_s=TIGHT_S), _pool())
    assert SLOW.finish_s(EXACT.cost) > TIGHT_S
    assert decided.served.level == EXACT
    assert decided.served.estimated_s == pytest.approx(_pool().workers[0].finish_s(EXACT.cost))
    assert isinstance(decide_admission(_pool(), decided.served, TIGHT_S, 256), Admitted)


def test_those_that_wait_already_are_before_it() -> None:
    """They wait for the same workers."""
    few, many = _pool(1, 10), _pool(40, 2000)
    assert few.expected_s(50, TIGHT_S) == pytest.approx(_pool().expected_s(50, TIGHT_S) + 10 / FAST.steps_per_s)
    assert many.expected_s(50, TIGHT_S) > TIGHT_S


def test_full_queue_is_refused_although_slow_slots_are_free() -> None:
    """They are no use to it, so it would make the queue longer."""
    served = RULES.decide(asks(None, left_s=TIGHT_S), _pool()).served
    refused = decide_admission(_pool(3, 30), served, TIGHT_S, max_queued=3)
    assert isinstance(refused, Refused)
    assert refused.reason is RefusedReason.QUEUE_FULL
    quick = RULES.decide(asks(0.96, left_s=TIGHT_S), _pool()).served
    assert isinstance(decide_admission(_pool(3, 30), replace(quick, level=K25), 60.0, max_queued=3), Admitted)


def test_equal_workers_are_not_waited_for() -> None:
    """One with a free slot is as soon as any other; where it is late, all are."""
    busy, other = worker("busy", 4), worker("other", 1)
    left_s = other.finish_s(EXACT.cost) - 1.0
    placement = choose_worker([busy, other], EXACT, left_s, 0.5)
    assert placement is not None
    assert placement.is_late(left_s)


def _slow_down(played: World, times: float) -> WorkerView:
    """The first worker's steps take so many times as long."""
    played.first.load.step_ms[:] = [times * step_ms for step_ms in played.first.load.step_ms]
    played.first.say()
    return played.connection.view


async def test_gateway_passes_over_who_waits_for_a_faster_worker() -> None:
    """Those behind it take the slots of the slow one meanwhile; it gets the next slot of the fast one."""
    async with world(alone=False) as played:
        dispatcher = Dispatcher(PromptAware(), played.pool, GatewayPart(), GatewayMetrics(CollectorRegistry()))
        _slow_down(played, 100.0)
        await turns()
        slow, fast = played.pool.connections
        held = [fast.take_slot(1) for _ in range(CAP)]
        now_s = asyncio.get_running_loop().time()
        level = Level(0, 1000)
        patient = QueuePlace("tenant", level, now_s + 0.5 * slow.view.finish_s(level.cost))
        assert fast.view.finish_s(level.cost) < 0.4 * slow.view.finish_s(level.cost)
        waiting = asyncio.create_task(dispatcher.attempt(patient))
        await turns()
        assert not waiting.done()
        behind = await dispatcher.attempt(replace(patient, level=Level(0, 1), deadline_s=now_s + 3600.0))
        assert behind.connection is slow
        fast.leave_slot(held[0])
        await turns()
        attempt = await waiting
        assert isinstance(attempt, Attempt)
        assert attempt.connection is fast
