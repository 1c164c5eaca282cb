"""Workers played at the wire and a gateway's connections to them, in virtual time: the test moves the clock."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from t2i_gateway.attempt import Attempt, WorkerLost
from t2i_gateway.workers.connection import Wiring, WorkerConnection
from t2i_gateway.workers.outlier_detection import LOOK_EVERY_S
from t2i_gateway.workers.pool import WorkerPool
from t2i_policy.outliers import HealthState
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
        message = await self._sent.get()
        if message is self:
            raise asyncio.CancelledError
        return message

    def cancel(self) -> None:
        """Whoever reads hears of it as of a task that is cancelled, as with a call of gRPC."""
        self._sent.put_nowait(self)


class PlayedWorker:
    """A worker's channel. It promises a message every `promised_ms` (0: it does not say)."""

    def __init__(self, name: str, step_s: float, promised_ms: int) -> None:
        self.name = name
        self.described = worker_pb2.WorkerDescription(name=name)
        self.watched = PlayedCall()
        self.frozen = self.closed = False
        self.connected = True
        self.asked = 0  # how often for what it is
        self.orders: list[tuple[str, int]] = []  # to hold a model, and of which revision
        self.refuses: grpc.StatusCode | None = None  # such an order
        self.idle = asyncio.Event()  # nothing runs on it any more
        self.idle.set()
        step_ms = [1e3 * step_s * (size + 1) / CAP for size in range(CAP)]
        self.load = worker_pb2.WorkerLoad(ready=True, batch_cap=CAP, queue_cap=4, step_ms=step_ms)
        self.load.next_within_ms = promised_ms

    def step(self, slower: float = 1.0, steps: int = 1) -> None:
        """Steps of a full batch end, each so many times slower than usual."""
        usual_ms = steps * self.load.step_ms[-1]
        self.load.steps_took_ms += slower * usual_ms
        self.load.steps_usual_ms += usual_ms

    def unary_unary(self, method: str, *_: Any, **__: Any) -> Callable[..., Any]:
        async def hold_model(order: worker_pb2.HoldModelRequest, **_: Any) -> worker_pb2.HoldModelResponse:
            self.orders.append((order.model, order.revision))
            if self.refuses is not None:
                nothing = grpc.aio.Metadata()
                raise grpc.aio.AioRpcError(self.refuses, nothing, nothing)
            return worker_pb2.HoldModelResponse()

        async def describe(*_: Any, **__: Any) -> worker_pb2.WorkerDescription:
            self.asked += 1
            if self.frozen:
                await asyncio.sleep(0)
                nothing = grpc.aio.Metadata()
                raise grpc.aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, nothing, nothing)
            return self.described

        return hold_model if method.endswith("HoldModel") else describe

    def unary_stream(self, method: str, *_: Any, **__: Any) -> Callable[..., PlayedCall]:
        def watch(*_: Any, **__: Any) -> PlayedCall:
            self.watched = PlayedCall()
            self.watched.send(self.load)
            return self.watched

        return watch if method.endswith("WatchLoad") else lambda *_, **__: PlayedCall()

    def get_state(self) -> grpc.ChannelConnectivity:
        return grpc.ChannelConnectivity.READY if self.connected else grpc.ChannelConnectivity.CONNECTING

    async def close(self, grace: float | None = None) -> None:
        await self.idle.wait()
        self.closed = True

    def say(self) -> None:
        if not self.frozen:
            self.watched.send(self.load)


@dataclass
class World:
    """Two workers, a gateway's connections to them, a clock that the test moves. `alone`: no other gateway sends."""

    workers: dict[str, PlayedWorker]
    alone: bool = True
    now_s: float = 0.0
    ejections: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.opened = 0
        wiring = Wiring(self._open, alone=self.alone)  # type: ignore[arg-type]
        self.pool = WorkerPool(list(self.workers), wiring, self.ejections.append, clock=lambda: self.now_s)

    def _open(self, address: str) -> PlayedWorker:
        self.opened += 1
        return self.workers[address]

    @property
    def connection(self) -> WorkerConnection:
        return self.pool.connections[0]

    @property
    def first(self) -> PlayedWorker:
        return self.workers["first"]

    async def pass_s(self, seconds: float) -> None:
        """In looks, as `WorkerPool.run` would; every worker that can says its load each time."""
        for _ in range(round(seconds / LOOK_EVERY_S)):
            self.now_s += LOOK_EVERY_S
            for worker in self.workers.values():
                worker.say()
            await turns()
            self.pool.look()
            await turns()

    async def until_out_s(self, limit_s: float = 60.0) -> float:
        """Seconds until the first worker is left out."""
        since_s = self.now_s
        first = self.connection
        while first.state is not HealthState.EJECTED and first.ready and self.now_s - since_s < limit_s:
            await self.pass_s(LOOK_EVERY_S)
        return self.now_s - since_s

    async def first_ready(self) -> None:
        """Until the first worker is ready again, while time goes on."""
        while not (self.connection.ready and self.connection.view.ready):
            await self.pass_s(LOOK_EVERY_S)

    def send(self, steps: int = STEPS) -> "Request":
        return Request(self.connection, steps)


class Request:
    """One request on a worker, relayed."""

    def __init__(self, connection: WorkerConnection, steps: int = STEPS) -> None:
        self.attempt = Attempt(connection, connection.take_slot(steps))
        self.call = PlayedCall()
        self.moved = False
        self.relaying = asyncio.create_task(self._relay())

    async def _relay(self) -> None:
        try:
            async for _ in self.attempt.relay(self.call):
                pass
        except WorkerLost:
            self.moved = True
        finally:
            self.attempt.end()

    def started(self) -> None:
        level = level_pb2.Level(num_inference_steps=STEPS)
        self.call.send(worker_pb2.WorkerEvent(started=worker_pb2.Started(served=level)))

    def progress(self, step: int) -> None:
        progress = level_pb2.StepProgress(step=step, num_inference_steps=STEPS)
        self.call.send(worker_pb2.WorkerEvent(progress=progress))


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


@asynccontextmanager
async def world(step_s: float = 0.1, promised_ms: int = 250, alone: bool = True) -> AsyncIterator[World]:
    """With steps of a full batch of `step_s`; both workers are ready."""
    played = World({name: PlayedWorker(name, step_s, promised_ms) for name in ("first", "second")}, alone)
    watching = [asyncio.create_task(connection.run()) for connection in played.pool.connections]
    await turns()
    assert all(connection.ready for connection in played.pool.connections)
    try:
        yield played
    finally:
        for task in watching:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*watching)
