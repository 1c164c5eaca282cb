"""Several gateways on one pool: each counts what the others have waiting and what workers owe to them."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from played_workers import CAP, STEPS, World, turns, world
from small_pools import worker
from t2i_api.gateway import GatewayPart
from t2i_gateway.by_model import ModelDispatchers
from t2i_gateway.dispatch import Dispatcher, QueuePlace
from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.level import Level
from t2i_policy.policies import PromptAware
from t2i_policy.pool_view import TURN_MARGIN, OtherQueues, PoolView
from t2i_policy.request.admission import Admitted, Refused, RefusedReason, decide_admission
from t2i_policy.request.other_gateways import HeldLoad, ToldQueue, foreign_load, other_queues
from t2i_policy.request.served import Served, ServedReason, estimate_s
from t2i_protos.v1 import worker_pb2

EXACT = Level(0, STEPS)
FULL = tuple(worker(f"w{n}", running=4) for n in range(2))

FOREIGN = {
    "nothing is reported": (HeldLoad(0, 0), HeldLoad(0, 0), HeldLoad(0, 0)),
    "all that is reported is ours": (HeldLoad(2, 30), HeldLoad(2, 30), HeldLoad(0, 0)),
    "the rest is the others'": (HeldLoad(4, 70), HeldLoad(1, 20), HeldLoad(3, 50)),
    "the report does not know our last request yet": (HeldLoad(0, 0), HeldLoad(1, 20), HeldLoad(0, 0)),
    "ours is far ahead in steps": (HeldLoad(3, 20), HeldLoad(1, 30), HeldLoad(2, 0)),
}


@pytest.mark.parametrize(("reported", "own", "foreign"), FOREIGN.values(), ids=FOREIGN.keys())
def test_what_is_not_ours_is_the_others(reported: HeldLoad, own: HeldLoad, foreign: HeldLoad) -> None:
    """Requests and steps alike, and never below nothing."""
    assert foreign_load(reported, own) == foreign


def test_queues_of_all_gateways_are_counted() -> None:
    """Two gateways hold as much each: wait, backlog and occupancy are those of one gateway with both queues."""
    shared = PoolView(FULL, 5, 200, 120, gateways=2)
    single = PoolView(FULL, 10, 400, 240)
    assert shared.queue_wait_s() == TURN_MARGIN * single.queue_wait_s()  # whose turn it is, is chance
    assert shared.backlog_s() == single.backlog_s()
    assert shared.occupancy == single.occupancy


def _admission(pool: PoolView, left_s: float, max_queued: int) -> Admitted | Refused:
    return decide_admission(
        pool, Served(EXACT, 0.0, estimate_s(pool, EXACT), ServedReason.AS_WANTED), left_s, max_queued
    )


def test_request_behind_the_queues_of_others_is_refused_at_once() -> None:
    """Its own gateway's queue alone would let it end in time."""
    single, shared = (PoolView(FULL, 10, 400, gateways=count) for count in (1, 2))
    left_s = (estimate_s(single, EXACT) + estimate_s(shared, EXACT)) / 2
    assert isinstance(_admission(single, left_s, 256), Admitted)
    refused = _admission(shared, left_s, 256)
    assert isinstance(refused, Refused)
    assert refused.reason is RefusedReason.OVERLOADED


def test_bound_on_the_queue_is_about_one_gateway() -> None:
    """`gateway.maxQueuedRequests` says how many may wait in one gateway, however many there are."""
    shared = PoolView(FULL, 10, 400, gateways=2)
    assert isinstance(_admission(shared, 1e6, 11), Admitted)
    refused = _admission(shared, 1e6, 10)
    assert isinstance(refused, Refused)
    assert refused.reason is RefusedReason.QUEUE_FULL


async def _report(played: World, running: int, waiting: int, steps_left: int) -> None:
    load = played.first.load
    load.running, load.waiting, load.steps_left = running, waiting, steps_left
    played.first.say()
    await turns()


@pytest.mark.parametrize(("alone", "in_flight", "steps"), [(False, CAP + 2, 90), (True, 1, STEPS)])
async def test_worker_owes_steps_to_other_gateways_too(alone: bool, in_flight: int, steps: int) -> None:
    """As it reports them; where no other gateway sends, what we sent is the whole truth."""
    async with world(alone=alone) as played:
        slot = played.connection.take_slot(STEPS)
        await _report(played, running=CAP, waiting=2, steps_left=90)
        assert (played.connection.view.in_flight, played.connection.view.steps_left) == (in_flight, steps)
        played.connection.leave_slot(slot)
        assert not played.connection.slots


async def test_gateway_waits_as_if_the_others_had_its_queue() -> None:
    """What the spec says of replicas reaches the decisions."""
    async with world(alone=False) as played:
        for connection in played.pool.connections:
            for _ in range(CAP):
                connection.take_slot(STEPS)
        metrics = GatewayMetrics(CollectorRegistry())
        dispatchers = [Dispatcher(PromptAware(), played.pool, GatewayPart(replicas=count), metrics) for count in (1, 3)]
        place = QueuePlace("tenant", EXACT, asyncio.get_running_loop().time() + 60)
        waiting = [asyncio.create_task(dispatcher.attempt(place)) for dispatcher in dispatchers]
        await turns()
        single, shared = (dispatcher.view() for dispatcher in dispatchers)
        assert (single.queued, shared.queued) == (1, 1)
        assert shared.queue_wait_s() == pytest.approx(3 * TURN_MARGIN * single.queue_wait_s())
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


OWN = ToldQueue("own", 99.5, 5, 100, 2.0)
TOLD = {
    "nobody was heard": ([], None),
    "what comes back of ourselves shows that workers pass it on": ([OWN], OtherQueues(0, 0, 0)),
    "others without ourselves may come from before a restart": ([ToldQueue("b", 99.0, 4, 80, 1.0)], None),
    "the newest of each counts": (
        [OWN, ToldQueue("b", 98.0, 9, 900, 9.0), ToldQueue("b", 99.0, 4, 80, 1.0), ToldQueue("c", 99.9, 0, 0, 0.5)],
        OtherQueues(4, 80, 1, 1.5),
    ),
    "whose requests wait where": (
        [OWN, ToldQueue("b", 99.0, 4, 80, 1.0, {7: 80}), ToldQueue("c", 99.9, 1, 9, 0.5, {7: 4, 8: 5})],
        OtherQueues(5, 89, 2, 1.5, ({7: 80}, {7: 4, 8: 5})),
    ),
    "an older version does not say whose": (
        [OWN, ToldQueue("b", 99.0, 4, 80, 1.0), ToldQueue("c", 99.9, 1, 9, 0.5, {7: 9})],
        OtherQueues(5, 89, 2, 1.5),
    ),
    "who was silent for long has no queue": ([OWN, ToldQueue("b", 90.0, 9, 900, 9.0)], OtherQueues(0, 0, 0)),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_gateways_tell_of_themselves(case: str) -> None:
    """Each by what it told last, never oneself twice."""
    told, expected = TOLD[case]
    assert other_queues(told, "own", 100.0) == expected


def test_queue_alone_in_the_pool_waits_alone() -> None:
    """All clients are at one of two gateways: it waits as if it were the only one."""
    single = PoolView(FULL, 10, 400)
    shared = PoolView(FULL, 10, 400, gateways=2, others=OtherQueues(0, 0, 0))
    assert shared.queue_wait_s() == single.queue_wait_s()
    assert shared.backlog_s() == single.backlog_s()
    assert shared.occupancy == single.occupancy


async def test_gateways_hear_of_each_other_through_a_worker() -> None:
    """What one tells with a request comes back to all with the load, and makes their wait longer."""
    async with world(alone=False) as played:
        dispatcher = Dispatcher(
            PromptAware(), played.pool, GatewayPart(replicas=2), GatewayMetrics(CollectorRegistry())
        )
        assert dispatcher.view().others is None
        request = worker_pb2.WorkerGenerateRequest()
        dispatcher.tell_others(request, 2.0)
        other = worker_pb2.GatewayQueue(gateway="other", requests=3, steps=150, rate_rps=6.0, age_ms=200)
        played.first.load.gateway_queues.extend([request.gateway_queue, other])
        played.first.say()
        await turns()
        assert dispatcher.view().others == OtherQueues(3, 150, 1, 6.0)
        assert ModelDispatchers({"": dispatcher}, played.pool.others).demand_factor(2.0) == pytest.approx(4.0)
