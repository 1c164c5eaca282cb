"""One worker as a gateway sees it: a link with its description, load, health and our leases."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from t2i_policy.health import MIN_SILENCE_S, SLOW_FACTOR, HealthState, WorkerHealth, after_silence, after_step
from t2i_policy.levels import Level
from t2i_policy.profile import step_time
from t2i_policy.views import WorkerView
from t2i_protos.v1 import worker_pb2, worker_pb2_grpc

log = logging.getLogger(__name__)
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 2.0
DESCRIBE_LIMIT_S = 2.0
SILENT_LIMIT_S = 5.0  # WatchLoad promises a message every second; a link this silent is dead
OpenChannel = Callable[[str], grpc.aio.Channel]
WorkerCall = Any  # grpc.aio.UnaryStreamCall; its stubs are not generic everywhere
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True, slots=True)
class Wiring:
    """How workers are reached. `alone` = no other gateway sends to them, so our own leases are the whole truth about
    their batches."""

    open_channel: OpenChannel
    alone: bool


@dataclass(slots=True, eq=False)
class Lease:
    """One request at one worker. `holds_slot` until its last step is done."""

    link: "WorkerLink"
    steps_left: int
    holds_slot: bool = True
    heard_s: float | None = None  # when its last step was reported; None before it started

    def start(self, steps_left: int) -> None:
        """The worker took it into its batch, with this many steps to do."""
        self._owe(steps_left)
        self.heard_s = self.link.now_s()

    def step_to(self, steps_left: int) -> None:
        """The worker reported progress."""
        now_s = self.link.now_s()
        done = self.steps_left - steps_left
        if self.heard_s is not None and done > 0:
            self.link.judge_step((now_s - self.heard_s) / done)
        self.heard_s = now_s
        self._owe(steps_left)
        if steps_left == 0:
            self.give_up_slot()

    def _owe(self, steps_left: int) -> None:
        self.link.steps_left -= self.steps_left - steps_left
        self.steps_left = steps_left

    def give_up_slot(self) -> None:
        """Its place in the batch is free; the image is still on its way."""
        if self.holds_slot:
            self.holds_slot = False
            self.link.in_flight -= 1
            self.link.changed()

    def end(self) -> None:
        """The request is over, whichever way."""
        self.link.steps_left -= self.steps_left
        self.steps_left = 0
        self.give_up_slot()


class WorkerLink:
    """One worker."""

    def __init__(
        self,
        address: str,
        wiring: Wiring,
        on_change: Callable[[], None],
        on_description: Callable[[worker_pb2.WorkerDescription], None],
        on_health: Callable[["WorkerLink"], None],
    ) -> None:
        self.address = address
        self._on_health = on_health
        self.description: worker_pb2.WorkerDescription | None = None
        self.in_flight = 0
        self.steps_left = 0
        self._wiring = wiring
        self._on_change = on_change
        self._on_description = on_description
        self._load = worker_pb2.WorkerLoad()
        self._step_s: tuple[float, ...] = ()
        self._foreign = 0
        self._view: WorkerView | None = None
        self.health = WorkerHealth()
        self.state = HealthState.GOOD
        self.level: Level | None = None  # what the plan assigned it
        self._loop = asyncio.get_running_loop()
        self._channel = wiring.open_channel(address)
        self._stub = worker_pb2_grpc.WorkerStub(self._channel)

    @property
    def name(self) -> str:
        """The worker's own name once known, else its address."""
        return self.description.name if self.description else self.address

    @property
    def ready(self) -> bool:
        """True if it takes requests."""
        return self.description is not None and self._load.ready and not self._load.draining

    def now_s(self) -> float:
        """The event loop's clock."""
        return self._loop.time()

    @property
    def full_step_s(self) -> float:
        """What a step of a full batch takes, as the worker measured it; 0 before it said so."""
        return step_time(self._step_s, self._load.batch_cap)

    def silence_limit_s(self, steps: int) -> float:
        """How long a healthy worker may say nothing while it does this many steps of a full batch."""
        return max(MIN_SILENCE_S, SLOW_FACTOR * (steps * self.full_step_s + self._load.fixed_ms / 1e3))

    def judge_step(self, took_s: float) -> None:
        """Compare one reported step with the worker's own measurement."""
        self._judged(after_step(self.health, took_s, self.full_step_s, self.now_s()))

    def judge_silence(self, silent_s: float) -> None:
        """It owed us something and said nothing for this long."""
        self._judged(after_silence(self.health, silent_s, 0.0, self.now_s()))

    def _judged(self, health: WorkerHealth) -> None:
        if health != self.health:
            self.health = health
            self._on_health(self)

    @property
    def view(self) -> WorkerView:
        """The snapshot that decisions see. A worker on trial takes one request at a time."""
        if self._view is None:
            in_flight = self.in_flight + self._foreign
            cap = min(1, self._load.batch_cap) if self.state is HealthState.ON_TRIAL else self._load.batch_cap
            self._view = WorkerView(
                name=self.name,
                ready=self.ready and self.state is not HealthState.EJECTED,
                running=min(cap, in_flight),
                waiting=max(0, in_flight - cap),
                batch_cap=cap,
                queue_cap=self._load.queue_cap,
                step_s=self._step_s,
                fixed_s=self._load.fixed_ms / 1e3,
                steps_left=max(0, self.steps_left),
                group=self.description.group if self.description else "",
                level=self.level,
            )
        return self._view

    def lease(self, steps: int) -> Lease:
        """Take a slot for a request of this many steps."""
        self.in_flight += 1
        self.steps_left += steps
        self._view = None
        return Lease(self, steps)

    def changed(self) -> None:
        """Forget the snapshot and wake who waits for a slot."""
        self._view = None
        self._on_change()

    def generate(self, request: worker_pb2.WorkerGenerateRequest, limit_s: float) -> WorkerCall:
        """Send a request; iterate the call for its events."""
        return self._stub.Generate(request, timeout=limit_s)

    def renew(self) -> grpc.aio.Channel:
        """Reach the worker over a new channel from now on. Returns the old one, to be closed when it is idle."""
        old, self._channel = self._channel, self._wiring.open_channel(self.address)
        self._stub = worker_pb2_grpc.WorkerStub(self._channel)
        return old

    async def run(self) -> None:
        """Keep watching this worker until cancelled; a lost one is tried again with growing pauses."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                self.description = await self._stub.Describe(
                    worker_pb2.DescribeRequest(), timeout=DESCRIBE_LIMIT_S, wait_for_ready=True
                )
                self._on_description(self.description)
                backoff_s = FIRST_BACKOFF_S
                if await self._watch():
                    continue
            except grpc.aio.AioRpcError as error:
                log.info("worker %s: %s", self.address, error.code().name)
            except TimeoutError:
                log.warning("worker %s fell silent", self.address)
            self.description = None
            self.changed()
            await asyncio.sleep(backoff_s)
            backoff_s = min(MAX_BACKOFF_S, 2 * backoff_s)

    async def _watch(self) -> bool:
        """True if there is a newer channel to watch on, False at the end of the stream."""
        stub = self._stub
        call = stub.WatchLoad(worker_pb2.WatchLoadRequest())
        try:
            while stub is self._stub:
                async with asyncio.timeout(SILENT_LIMIT_S):
                    load = await call.read()
                if not isinstance(load, worker_pb2.WorkerLoad):
                    return False
                self._take_in(load)
            return True
        finally:
            call.cancel()

    def _take_in(self, load: worker_pb2.WorkerLoad) -> None:
        self._load = load
        self._step_s = tuple(value / 1e3 for value in load.step_ms)
        self._foreign = 0 if self._wiring.alone else max(0, load.running + load.waiting - self.in_flight)
        self.changed()

    async def close(self, grace_s: float | None = None) -> None:
        """Close the channel; requests on it get `grace_s` to end."""
        await self._channel.close(grace_s)
