"""How soon a gateway leaves out a worker that stands still or is slow: virtual time, workers played at the wire."""

import asyncio

import pytest

from played_workers import CAP, STEPS, PlayedWorker, Request, turns, world
from t2i_gateway.workers.clock import LISTEN_EVERY_S, MAX_LOOK_S
from t2i_gateway.workers.connection import LOST_LIMIT_S
from t2i_policy.outliers import MIN_LATE_S, EjectedReason, HealthState


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
        assert await played.until_out_s() <= 1.0 + LISTEN_EVERY_S
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
            await played.pass_s(LISTEN_EVERY_S)
        assert played.ejections == []
        played.first.frozen = True
        assert 3.0 < await played.until_out_s() <= 4.0 + LISTEN_EVERY_S


async def test_frozen_worker_is_out_until_it_speaks_and_comes_back_at_once() -> None:
    """However long it stands still it gets nothing, not even on trial; that is one ejection. Soon after it speaks again
    it is tried with one request."""
    async with world() as played:
        played.first.frozen = True
        await played.until_out_s()
        for _ in range(12):
            await played.pass_s(LISTEN_EVERY_S)
            assert not played.link.view.ready
        assert played.ejections == [EjectedReason.SILENT]
        played.first.frozen = False
        await played.pass_s(1.5)
        assert played.link.health.state(asyncio.get_running_loop().time()) is not HealthState.GOOD
        assert played.link.health.ejections == 1


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
        for step in range(1, 4 * STEPS):
            await played.pass_s(max(LISTEN_EVERY_S, 10 * step_s))
            if played.ejections:
                break
            for one in sent:
                one.progress(min(step, STEPS - 1))
            await turns()
            if played.ejections:
                break
        out_s = played.now_s - began_s if 10 * step_s < MIN_LATE_S else 3 * step_s
        assert played.ejections
        assert out_s <= within_s
        assert played.link.state is HealthState.EJECTED


async def test_batch_reports_a_step_once() -> None:
    """Four requests say of one hiccup that it took 0.9 s: that is one late step, not 3.6 s of them."""
    async with world(0.1) as played:
        sent = [played.send() for _ in range(CAP)]
        for one in sent:
            one.started()
        await turns()
        await played.pass_s(0.75)
        for one in sent:
            one.progress(1)
        await turns()
        assert played.ejections == []
        assert played.link.health.slow_s == pytest.approx(0.75)


async def test_gateway_that_stood_still_blames_no_worker() -> None:
    """After a stall of its own it reads first what came meanwhile: nobody is left out, nothing moves."""
    async with world(0.1) as played:
        request = played.send()
        request.started()
        await played.pass_s(LISTEN_EVERY_S)
        played.now_s += 60.0
        played.look()
        await turns()
        request.progress(1)
        await played.pass_s(LISTEN_EVERY_S)
        assert played.ejections == []
        assert not request.relaying.done()
        assert played.link.health.slow_s <= 2 * MAX_LOOK_S
        request.relaying.cancel()


async def test_worker_that_is_as_it_was_before_it_was_lost_is_ready_again() -> None:
    """Its load says nothing new, but that it says it is news."""
    async with world() as played:
        played.first.frozen = True
        await played.pass_s(6.0)
        assert not played.link.view.ready
        played.first.frozen = False
        await asyncio.wait_for(played.link_ready(), 20)
        assert played.link.view.ready


async def test_dead_connection_is_given_up_for_a_new_one() -> None:
    """The network was away and is whole again, but TCP does not know: what was not acknowledged is sent again after
    pauses that double. The worker is reached over another connection, a moment after the first one was found dead.
    """
    async with world() as played:
        dead = played.first
        dead.frozen = True
        played.workers["first"] = PlayedWorker("first", 0.1, 250)
        await played.pass_s(LOST_LIMIT_S + LISTEN_EVERY_S)
        assert not played.link.ready
        await asyncio.wait_for(played.link_ready(), 20)
        assert dead.closed


@pytest.mark.parametrize("connected", [True, False])
async def test_connection_that_is_being_made_is_left_alone(connected: bool) -> None:
    """A first attempt gets a tenth of a second, later ones more: who begins anew each time never gets further. One that
    was there and brings nothing is given up.
    """
    async with world() as played:
        played.first.frozen, played.first.connected = True, connected
        await played.pass_s(LOST_LIMIT_S + LISTEN_EVERY_S)
        opened = played.opened
        await asyncio.sleep(1.0)  # in which it is asked again some times
        assert (played.opened > opened) == connected


@pytest.mark.parametrize("image_sent", [False, True])
async def test_requests_on_a_dead_connection_are_not_its_worker_s_fault(image_sent: bool) -> None:
    """The only worker was cut off and is reached again. What ran there ends, at once or, if its image was on the way,
    after the time that an event may take; it may begin anew on the same worker, which is not called stuck.
    """
    async with world() as played:
        played.workers["second"].load.ready = False
        await played.pass_s(0.5)
        request = played.send()
        request.started()
        await turns()
        request.lease.may_move = not image_sent
        played.first.frozen = True
        played.workers["first"] = PlayedWorker("first", 0.1, 250)
        await played.pass_s(LOST_LIMIT_S + LISTEN_EVERY_S)
        assert request.moved != image_sent
        await asyncio.wait_for(played.link_ready(), 20)
        assert request.lease.outdated
        await played.pass_s(MIN_LATE_S + LISTEN_EVERY_S)
        await turns()
        assert request.moved
        assert EjectedReason.STUCK not in played.ejections


async def test_worker_that_left_is_heard_until_its_last_connection_is_done() -> None:
    """It left the pool after its connection was made anew: what still runs on the older one is looked after."""
    async with world() as played:
        request = played.send()
        request.started()
        await turns()
        older = played.first
        older.idle.clear()
        played.workers["first"] = PlayedWorker("first", 0.1, 250)
        played.pool.renew()
        played.pool.remove("first")
        await turns()
        await played.pass_s(MIN_LATE_S + 2 * LISTEN_EVERY_S)
        assert request.moved
        older.idle.set()


async def test_all_workers_silent_is_not_the_workers() -> None:
    """A network that went away: half of them are left out at most, and what the others hold stays."""
    async with world() as played:
        requests = [Request(link.lease(STEPS)) for link in played.pool.links]
        for one in requests:
            one.started()
        await turns()
        for worker in played.workers.values():
            worker.frozen = True
        await played.pass_s(1.5)
        states = [link.state for link in played.pool.links]
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
        assert played.link.state is not HealthState.EJECTED
        assert not request.moved
        other.load.ready = True
        await played.pass_s(0.5)
        await turns()
        assert played.link.state is HealthState.EJECTED
        assert request.moved
