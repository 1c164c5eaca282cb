"""How soon a gateway leaves out a worker that stands still or is slow: virtual time, workers played at the wire."""

import asyncio

import grpc
import pytest
from prometheus_client import CollectorRegistry

from played_workers import CAP, STEPS, PlayedCall, PlayedWorker, Request, turns, world
from t2i_api.gateway import GatewayPart
from t2i_gateway.attempt import Attempt, WorkerLost
from t2i_gateway.dispatch import Dispatcher, QueuePlace
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.workers.failures import RequestFailures
from t2i_gateway.workers.outlier_detection import LOOK_EVERY_S, LOST_LIMIT_S
from t2i_policy.failure_streak import FAILURES_IN_A_ROW
from t2i_policy.level import Level
from t2i_policy.outliers import FIRST_PAUSE_S, MIN_LATE_S, EjectedReason, HealthState
from t2i_policy.policies import PromptAware
from t2i_protos.v1 import level_pb2, worker_pb2


@pytest.mark.parametrize("step_s", [0.02, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("requests", [0, 1, 4])
async def test_frozen_worker_is_left_out_whatever_it_does(step_s: float, requests: int) -> None:
    """It promised a message every quarter of a second: four of them are missed, idle or busy, and however long a step
    is; what it held, begun or not, moves in the same moment."""
    async with world(step_s) as played:
        await played.pass_s(1.0)
        sent = [played.send() for _ in range(requests)]
        for one in sent[1:]:
            one.started()
        await turns()
        played.first.frozen = True
        assert await played.until_out_s() <= 1.0 + LOOK_EVERY_S
        await turns()
        assert all(one.moved for one in sent)
        assert played.ejections == [EjectedReason.SILENT]


async def test_worker_of_an_older_version_may_speak_once_a_second() -> None:
    """It does not say how often it will: a second is what workers promised before they said so."""
    async with world(promised_ms=0) as played:
        for _ in range(20):
            played.first.frozen = True
            await played.pass_s(1.0)
            played.first.frozen = False
            await played.pass_s(LOOK_EVERY_S)
        assert played.ejections == []
        played.first.frozen = True
        assert 3.0 < await played.until_out_s() <= 4.0 + LOOK_EVERY_S


async def test_frozen_worker_is_out_until_it_speaks_and_comes_back_at_once() -> None:
    """However long it stands still it gets nothing, not even on trial; that is one ejection. Soon after it speaks again
    it is tried with one request."""
    async with world() as played:
        played.first.frozen = True
        await played.until_out_s()
        for _ in range(12):
            await played.pass_s(LOOK_EVERY_S)
            assert not played.connection.view.ready
        assert played.ejections == [EjectedReason.SILENT]
        played.first.frozen = False
        await played.pass_s(1.5)
        assert played.connection.health.state(asyncio.get_running_loop().time()) is not HealthState.GOOD
        assert played.connection.health.ejections == 1


@pytest.mark.parametrize(("step_s", "within_s"), [(0.02, 2.0), (0.05, 2.0), (0.1, 2.0), (0.5, 2.0), (2.0, 6.5)])
async def test_ten_times_slower_is_left_out_within_three_steps(step_s: float, within_s: float) -> None:
    """Three steps of a full batch as the worker measured them, or the floor of a second, once more for late steps that
    add up. Requests with all before them move; the worker talks all the time."""
    async with world(step_s) as played:
        sent = [played.send() for _ in range(CAP)]
        for one in sent:
            one.started()
        await turns()
        began_s = played.now_s
        while not played.ejections and played.now_s - began_s < 60:
            played.first.load.step_age_ms += 1e3 * LOOK_EVERY_S
            while played.first.load.step_age_ms >= 1e4 * step_s:
                played.first.load.step_age_ms -= 1e4 * step_s
                played.first.step(slower=10)
            await played.pass_s(LOOK_EVERY_S)
        assert played.now_s - began_s <= within_s
        assert played.connection.state is HealthState.EJECTED
        await turns()
        assert all(one.moved for one in sent)


async def test_only_request_of_a_slow_worker_moves() -> None:
    """There is no other one whose steps could tell, and it is not waiting at the moment when they do."""
    async with world(0.1) as played:
        request = played.send()
        request.started()
        await turns()
        for step in range(1, 4):
            played.first.step(slower=8)
            await played.pass_s(0.75)
            request.progress(step)
            await turns()
        assert played.ejections == [EjectedReason.SLOW_STEPS]
        assert request.moved


async def test_request_that_is_not_waiting_moves_with_its_next_event() -> None:
    """Its client reads slowly: what was found meanwhile is not forgotten."""
    async with world(0.1) as played:
        attempt = Attempt(played.connection, played.connection.take_slot(STEPS))
        call = PlayedCall()
        events = attempt.relay(call)
        call.send(worker_pb2.WorkerEvent(progress=level_pb2.StepProgress(step=1, num_inference_steps=STEPS)))
        await anext(events)
        played.first.frozen = True
        await played.until_out_s()
        with pytest.raises(WorkerLost):
            await anext(events)
        attempt.end()


async def test_slow_worker_is_known_without_a_request_of_ours() -> None:
    """Another gateway's requests are on it: its load tells all gateways alike."""
    async with world(0.1) as played:
        await played.pass_s(LOOK_EVERY_S)
        for _ in range(2):
            played.first.step(slower=8)
            await played.pass_s(0.75)
        assert played.ejections == [EjectedReason.SLOW_STEPS]


@pytest.mark.parametrize("work", ["step_age_ms", "encode_age_ms"])
async def test_stuck_worker_is_left_out(work: str) -> None:
    """It talks and is ready, but a step, a text or an image does not end: whatever it holds moves."""
    async with world(0.1) as played:
        waiting, running = played.send(), played.send()
        running.started()
        await turns()
        setattr(played.first.load, work, 1e3 * MIN_LATE_S)
        await played.pass_s(LOOK_EVERY_S)
        assert played.ejections == [EjectedReason.STUCK]
        assert waiting.moved
        assert running.moved


async def test_worker_of_an_older_version_is_judged_by_its_silence_only() -> None:
    """It does not tell what its steps take. Left out while it was silent, it is back once it has drawn an image."""
    async with world() as played:
        request = played.send()
        request.started()
        await played.pass_s(60.0)
        assert played.ejections == []
        played.first.frozen = True
        await played.until_out_s()
        played.first.frozen = False
        await played.pass_s(4.0)
        assert played.connection.view.batch_cap == 1
        played.connection.failures.drew()
        assert played.connection.view.batch_cap == CAP


async def test_gateway_that_stood_still_blames_no_worker() -> None:
    """After a stall of its own it reads first what came meanwhile: nobody is left out, nothing moves."""
    async with world(0.1) as played:
        request = played.send()
        request.started()
        await played.pass_s(LOOK_EVERY_S)
        played.now_s += 60.0
        played.first.step(steps=600)
        played.pool.look()
        await turns()
        await played.pass_s(LOOK_EVERY_S)
        assert played.ejections == []
        assert not request.relaying.done()
        request.relaying.cancel()


async def test_worker_that_is_as_it_was_before_it_was_lost_is_ready_again() -> None:
    """Its load says nothing new, but that it says it is news."""
    async with world() as played:
        played.first.frozen = True
        await played.pass_s(6.0)
        assert not played.connection.view.ready
        played.first.frozen = False
        await asyncio.wait_for(played.first_ready(), 60)
        assert played.connection.view.ready


async def test_dead_connection_is_given_up_for_a_new_one() -> None:
    """The network was away and is whole again, but TCP does not know: what was not acknowledged is sent again after
    pauses that double. The worker is reached over another connection, a moment after the first one was found dead.
    """
    async with world() as played:
        dead = played.first
        dead.frozen = True
        played.workers["first"] = PlayedWorker("first", 0.1, 250)
        await played.pass_s(LOST_LIMIT_S + LOOK_EVERY_S)
        assert not played.connection.ready
        await asyncio.wait_for(played.first_ready(), 60)
        assert dead.closed


@pytest.mark.parametrize("connected", [True, False])
async def test_connection_that_is_being_made_is_left_alone(connected: bool) -> None:
    """A first attempt gets a tenth of a second, later ones more: who begins anew each time never gets further. One that
    was there and brings nothing is given up.
    """
    async with world() as played:
        played.first.frozen, played.first.connected = True, connected
        await played.pass_s(LOST_LIMIT_S + LOOK_EVERY_S)
        opened, asked = played.opened, played.first.asked
        async with asyncio.timeout(60):
            while played.first.asked < asked + 3:  # noqa: ASYNC110 - pauses of real time lie between
                await asyncio.sleep(0.01)
        await turns()
        assert (played.opened > opened) == connected


@pytest.mark.parametrize("image_sent", [False, True])
async def test_requests_on_a_dead_connection_are_not_its_worker_s_fault(image_sent: bool) -> None:
    """The only worker was cut off and is reached again. What ran there ends with the connection, also if its image was
    on the way; it may begin anew on the same worker, which is not called stuck.
    """
    async with world() as played:
        played.workers["second"].load.ready = False
        await played.pass_s(0.5)
        request = played.send()
        request.started()
        await turns()
        request.attempt.slot.may_move = not image_sent
        played.first.frozen = True
        played.workers["first"] = PlayedWorker("first", 0.1, 250)
        await played.pass_s(LOST_LIMIT_S - LOOK_EVERY_S)
        assert not request.moved
        await played.pass_s(2 * LOOK_EVERY_S)
        assert request.moved
        assert request.attempt.outdated
        await asyncio.wait_for(played.first_ready(), 60)
        assert EjectedReason.STUCK not in played.ejections


async def test_worker_that_left_is_heard_until_its_last_request_is_done() -> None:
    """It left the pool, and what it still runs is looked after: it moves once the worker stands still."""
    async with world() as played:
        request = played.send()
        request.started()
        await turns()
        played.pool.remove("first")
        await played.pass_s(0.5)
        assert not request.moved
        played.first.frozen = True
        await played.pass_s(MIN_LATE_S + LOOK_EVERY_S)
        assert request.moved


async def test_requests_go_on_where_certificates_changed() -> None:
    """The worker is reached over another channel, and what runs on the old one ends there."""
    async with world() as played:
        request = played.send()
        request.started()
        await turns()
        played.pool.renew()
        await played.pass_s(1.0)
        assert played.opened == 4
        assert played.connection.ready
        assert not request.moved
        request.relaying.cancel()


async def test_all_workers_silent_is_not_the_workers() -> None:
    """A network that went away: half of them are left out at most, and what the others hold stays."""
    async with world() as played:
        requests = [Request(connection) for connection in played.pool.connections]
        for one in requests:
            one.started()
        await turns()
        for worker in played.workers.values():
            worker.frozen = True
        await played.pass_s(1.5)
        states = [connection.state for connection in played.pool.connections]
        assert states.count(HealthState.EJECTED) == 1
        await turns()
        moved = [one.moved for one in requests]
        assert moved == [state is HealthState.EJECTED for state in states]  # there is nowhere else to begin anew
        for one in requests:
            one.relaying.cancel()


async def test_last_worker_is_never_left_out() -> None:
    """The other one restarts, as in a rolling update, and this one stands still for a moment: it stays in use, keeps
    its request, and is left out only when the other is back.
    """
    async with world() as played:
        other = played.workers["second"]
        other.load.ready = False
        await played.pass_s(0.5)
        request = played.send()
        request.started()
        played.first.frozen = True
        await played.pass_s(2.0)
        assert played.connection.state is not HealthState.EJECTED
        assert not request.moved
        other.load.ready = True
        await played.pass_s(0.5)
        await turns()
        assert played.connection.state is HealthState.EJECTED
        assert request.moved


@pytest.mark.parametrize("away", ["not ready", "left out"])
async def test_waiting_request_gets_the_worker_that_is_back(away: str) -> None:
    """Nothing else wakes it: no request ends meanwhile."""
    async with world() as played:
        dispatcher = Dispatcher(PromptAware(), played.pool, GatewayPart(), GatewayMetrics(CollectorRegistry()))
        played.workers["second"].load.ready = False
        played.first.load.ready = away == "left out"
        for prompt in range(FAILURES_IN_A_ROW if away == "left out" else 0):
            RequestFailures(prompt).lost(played.connection.failures, grpc.StatusCode.INTERNAL)
        await played.pass_s(0.5)
        waiting = asyncio.create_task(dispatcher.attempt(QueuePlace("tenant", Level(0, STEPS), 1e9)))
        await turns()
        assert not waiting.done()
        played.first.load.ready = True
        await played.pass_s(FIRST_PAUSE_S)
        assert waiting.done()


async def test_left_out_worker_is_not_counted_among_those_that_serve() -> None:
    """At once, though nothing comes from it and no request ends."""
    async with world() as played:
        Dispatcher(PromptAware(), played.pool, GatewayPart(), GatewayMetrics(registry := CollectorRegistry()))
        played.first.frozen = True
        await played.until_out_s()
        assert registry.get_sample_value("t2i_gateway_ready_workers") == 1
