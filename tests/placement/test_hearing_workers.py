"""How soon a gateway leaves out a worker that stands still or is slow: virtual time, workers played at the wire."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from t2i_gateway.hearing import LISTEN_EVERY_S, MAX_LOOK_S, ListeningClock
from t2i_gateway.leases import Lease
from t2i_gateway.links import LOST_LIMIT_S, Wiring, WorkerLink
from t2i_gateway.relaying import Attempt, WorkerLost, relay
from t2i_gateway.workers import WorkerPool
from t2i_policy.health import MIN_LATE_S, EjectedReason, HealthState
from t2i_protos.v1 import level_pb2, worker_pb2

STEPS, CAP = 20, 4
TURNS = 20  # of the event loop, after which everything that could go on has


class PlayedCall:
    """A stream of a worker, whose messages the test sends."""

    def __init__(self) -> None:
        self._sent: asyncio.Queue[Any] = asyncio.Queue()

    def send(self, message: Any) -> None:
        self._sent.put_nowait(message)

    async def read(self) -> Any:
        return await self._sent.get()

    def cancel(self) -> None:
        pass


class PlayedWorker:
    """A worker's channel. It promises a message every `promised_ms` (0: it does not say)."""

    def __init__(self, name: str, step_s: float, promised_ms: int) -> None:
        self.name = name
        self.watched = PlayedCall()
        self.frozen = False
        step_ms = [1e3 * step_s * (size + 1) / CAP for size in range(CAP)]
        self.load = worker_pb2.WorkerLoad(ready=True, batch_cap=CAP, queue_cap=4, step_ms=step_ms)
        self.load.next_within_ms = promised_ms

    def unary_unary(self, *_: Any, **__: Any) -> Callable[..., Any]:
        async def describe(*_: Any, **__: Any) -> worker_pb2.WorkerDescription:
            if self.frozen:
                await asyncio.Event().wait()
            return worker_pb2.WorkerDescription(name=self.name)

        return describe

    def unary_stream(self, method: str, *_: Any, **__: Any) -> Callable[..., PlayedCall]:
        def watch(*_: Any, **__: Any) -> PlayedCall:
            self.watched = PlayedCall()
            self.watched.send(self.load)
            return self.watched

        return watch if method.endswith("WatchLoad") else lambda *_, **__: PlayedCall()

    def say(self) -> None:
        if not self.frozen:
            self.watched.send(self.load)


@dataclass
class World:
    """Two workers, a gateway's links to them, and a clock that the test moves."""

    workers: dict[str, PlayedWorker]
    now_s: float = 0.0
    ejections: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = ListeningClock(lambda: self.now_s)
        wiring = Wiring(lambda address: self.workers[address], alone=True, clock=self.clock)  # type: ignore[arg-type, return-value]
        self.pool = WorkerPool(list(self.workers), wiring, "", self.ejections.append)

    @property
    def link(self) -> WorkerLink:
        return self.pool.links[0]

    @property
    def first(self) -> PlayedWorker:
        return self.workers["first"]

    async def pass_s(self, seconds: float) -> None:
        """In looks, as `WorkerPool.run` would; every worker that can says its load each time."""
        for _ in range(round(seconds / LISTEN_EVERY_S)):
            self.now_s += LISTEN_EVERY_S
            for worker in self.workers.values():
                worker.say()
            await turns()
            self.look()
            await turns()

    def look(self) -> None:
        self.pool.listen()

    async def until_out_s(self, limit_s: float = 60.0) -> float:
        """Seconds until the first worker is left out."""
        since_s = self.now_s
        while self.link.state is not HealthState.EJECTED and self.link.ready and self.now_s - since_s < limit_s:
            await self.pass_s(LISTEN_EVERY_S)
        return self.now_s - since_s

    async def link_ready(self) -> None:
        """Until the first worker is ready again, while time goes on."""
        while not (self.link.ready and self.link.view.ready):
            await self.pass_s(LISTEN_EVERY_S)

    def send(self, steps: int = STEPS) -> "Request":
        return Request(self.link.lease(steps))


class Request:
    """One request on a worker, relayed."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.call = PlayedCall()
        self.moved = False
        self.relaying = asyncio.create_task(self._relay())

    async def _relay(self) -> None:
        try:
            async for _ in relay(self.call, self.lease, Attempt()):
                pass
        except WorkerLost:
            self.moved = True
        finally:
            self.lease.end()

    def started(self) -> None:
        level = level_pb2.Level(num_inference_steps=STEPS)
        self.call.send(worker_pb2.WorkerEvent(started=worker_pb2.Started(served=level, report_every_steps=1)))

    def progress(self, step: int) -> None:
        progress = level_pb2.StepProgress(step=step, num_inference_steps=STEPS)
        self.call.send(worker_pb2.WorkerEvent(progress=progress))


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


@asynccontextmanager
async def world(step_s: float = 0.1, promised_ms: int = 250) -> AsyncIterator[World]:
    """With steps of a full batch of `step_s`; both workers are ready."""
    played = World({name: PlayedWorker(name, step_s, promised_ms) for name in ("first", "second")})
    watching = [asyncio.create_task(link.run()) for link in played.pool.links]
    await turns()
    assert all(link.ready for link in played.pool.links)
    try:
        yield played
    finally:
        for task in watching:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*watching)


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
        played.first.frozen = True
        played.workers["first"] = PlayedWorker("first", 0.1, 250)
        await played.pass_s(LOST_LIMIT_S + LISTEN_EVERY_S)
        assert not played.link.ready
        await asyncio.wait_for(played.link_ready(), 20)


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
