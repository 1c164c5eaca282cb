"""One worker as a gateway sees it: a link with its description, load, health and our leases."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

from t2i_gateway.workers.clock import StallFreeClock
from t2i_gateway.workers.failures import WorkerFailures
from t2i_gateway.workers.slot import Slot
from t2i_policy.level import Level
from t2i_policy.outliers import (
    HealthState,
    WorkerHealth,
    after_report,
    after_silence,
    after_wait,
    lateness_limit_s,
    moves,
    silence_limit_s,
)
from t2i_policy.pool_view import WorkerView
from t2i_policy.profile import step_time
from t2i_policy.request.other_gateways import HeldLoad, foreign_load
from t2i_protos.v1 import worker_pb2, worker_pb2_grpc

log = logging.getLogger(__name__)
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 2.0
DESCRIBE_LIMIT_S = 2.0
OLD_PROMISE_S = 1.0  # of workers that do not say how often they send their load
LOST_LIMIT_S = 5.0  # a link this silent is begun anew
OpenChannel = Callable[[str], grpc.aio.Channel]
WorkerCall = Any  # grpc.aio.UnaryStreamCall; its stubs are not generic everywhere
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # each its own connection: a link begun anew must not get the dead one
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True, slots=True)
class Wiring:
    """How workers are reached. `alone` = no other gateway sends to them, so our own leases are the whole truth about
    their batches. `clock`: how long they have been silent."""

    open_channel: OpenChannel
    alone: bool
    clock: StallFreeClock


@dataclass(frozen=True, slots=True)
class LinkEvents:
    """Whom a link tells that anything about it changed, that its worker described itself, what its health was before,
    and that its connection seems dead, so that it wants another one."""

    on_change: Callable[[], None]
    on_description: Callable[[worker_pb2.WorkerDescription], None]
    on_health: Callable[["WorkerConnection", WorkerHealth], None]
    on_lost: Callable[["WorkerConnection"], None]


class WorkerConnection:
    """One worker."""

    def __init__(self, address: str, wiring: Wiring, events: LinkEvents) -> None:
        self.address = address
        self._events = events
        self.description: worker_pb2.WorkerDescription | None = None
        self.in_flight = 0
        self.steps_left = 0
        self._wiring = wiring
        self._load = worker_pb2.WorkerLoad()
        self._leases: set[Slot] = set()
        self._watching: asyncio.Timeout | None = None  # while a message of WatchLoad is waited for
        self._told = False  # its load, since the present watch began
        self.connection = 0  # a number, higher for each channel
        self._heard_s = 0.0  # when anything came from it, by the listening clock
        self._reported_s = 0.0  # until when its reports of steps are judged
        self._step_s: tuple[float, ...] = ()
        self._foreign = HeldLoad()
        self._view: WorkerView | None = None
        self.health = WorkerHealth()
        self.state = HealthState.GOOD
        self.level: Level | None = None  # what the plan assigned it
        self._loop = asyncio.get_running_loop()
        self.failures = WorkerFailures(lambda: self.health, self._judged, self._loop.time)
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

    @property
    def full_step_s(self) -> float:
        """What a step of a full batch takes, as the worker measured it; 0 before it said so."""
        return step_time(self._step_s, self._load.batch_cap)

    def patience_s(self, steps: int, images: int) -> float:
        """How long a healthy worker may let a request wait that needs so many steps of a full batch and so many
        images (or texts) encoded before it hears something."""
        return lateness_limit_s(steps * self.full_step_s + images * self._load.fixed_ms / 1e3)

    @property
    def batch_cap(self) -> int:
        """How many requests it runs at once."""
        return self._load.batch_cap

    def now_s(self) -> float:
        """By the listening clock."""
        return self._wiring.clock.now_s()

    def hear(self) -> None:
        """Something came from it."""
        self._heard_s = self.now_s()

    def judge_report(self, since_s: float, steps: int) -> None:
        """Compare steps that one request reported with the worker's own measurement: those since `since_s`. All
        requests of a batch report the same steps, so what began before the last judged report is not judged again."""
        now_s = self.now_s()
        if since_s >= self._reported_s:
            self._reported_s = now_s
            self._judged(after_report(self.health, now_s - since_s, steps * self.full_step_s, self._loop.time()))

    def listen(self) -> None:
        """Judge its silence, and failures that were not sure. To be called every LISTEN_EVERY_S."""
        self.failures.look(self.ready)
        if self._watching is not None:
            self._judge_silence(self._watching, self.now_s() - self._heard_s)

    def look_at_waits(self, others_serve: bool) -> None:
        """Judge what its requests wait for. Those that wait too long move if there are others to move to; else they
        stay, as what they have drawn so far is all that there is. On an outdated connection it is not the worker's
        fault, and the worker itself may be where to move.
        """
        now_s = self.now_s()
        for lease in [lease for lease in self._leases if lease.overdue(now_s)]:
            if not lease.outdated:
                self._judged(after_wait(self.health, lease.limit_s, lease.limit_s, self._loop.time()))
            if others_serve or (lease.outdated and self.ready):
                lease.give_up()

    def _judge_silence(self, watching: asyncio.Timeout, silent_s: float) -> None:
        promised_s = self._load.next_within_ms / 1e3 or OLD_PROMISE_S
        self._judged(after_silence(self.health, silent_s, silence_limit_s(promised_s), self._loop.time()))
        if silent_s >= LOST_LIMIT_S and not watching.expired():
            watching.reschedule(self._loop.time())

    def settle(self, state: HealthState) -> None:
        """How it may be used from now on, among all workers of the pool."""
        self.state = state
        if state is HealthState.EJECTED:
            for lease in self._leases:
                if lease.may_move and moves(self.health, lease.steps_left, lease.steps):
                    lease.give_up()
        self.changed()

    def _judged(self, health: WorkerHealth) -> None:
        if health != self.health:
            before, self.health = self.health, health
            self._events.on_health(self, before)

    @property
    def view(self) -> WorkerView:
        """The snapshot that decisions see. A worker on trial takes one request at a time."""
        if self._view is None:
            in_flight = self.in_flight + self._foreign.requests
            cap = min(1, self._load.batch_cap) if self.state is HealthState.ON_TRIAL else self._load.batch_cap
            self._view = WorkerView(
                name=self.name,
                ready=self.ready and self.state is not HealthState.EJECTED,
                running=min(cap, in_flight),
                waiting=max(0, in_flight - cap),
                batch_cap=cap,
                step_s=self._step_s,
                fixed_s=self._load.fixed_ms / 1e3,
                steps_left=max(0, self.steps_left) + self._foreign.steps,
                group=self.description.group if self.description else "",
                level=self.level,
                unproven=self.failures.failing,
            )
        return self._view

    def lease(self, steps: int) -> Slot:
        """Take a slot for a request of this many steps."""
        self.in_flight += 1
        self.steps_left += steps
        self._view = None
        lease = Slot(self, steps, steps)
        self._leases.add(lease)
        return lease

    def forget(self, lease: Slot) -> None:
        """Its request is over."""
        self._leases.discard(lease)

    def changed(self) -> None:
        """Forget the snapshot and wake who waits for a slot."""
        self._view = None
        self._events.on_change()

    def generate(self, request: worker_pb2.WorkerGenerateRequest, limit_s: float) -> WorkerCall:
        """Send a request; iterate the call for its events."""
        return self._stub.Generate(request, timeout=limit_s)

    def watch_latents(self) -> WorkerCall:
        """What lies in the worker's own store; read the call for its messages, each within what the last promised."""
        return self._stub.WatchLatents(worker_pb2.WatchLatentsRequest())

    def renew(self) -> grpc.aio.Channel:
        """Reach the worker over a new channel from now on. Returns the old one, to be closed when it is idle."""
        self.connection += 1
        old, self._channel = self._channel, self._wiring.open_channel(self.address)
        self._stub = worker_pb2_grpc.WorkerStub(self._channel)
        return old

    async def run(self) -> None:
        """Keep watching this worker until cancelled; a lost one is tried again with growing pauses.

        A connection that was there and brings nothing is given up for another one: TCP sends again what was not
        acknowledged after pauses that double, so it would learn of a healed network as long after as that was away.
        One that is still being made is left alone, as it may need longer than a first attempt gets.
        """
        backoff_s = FIRST_BACKOFF_S
        while True:
            connected = self._channel.get_state() is grpc.ChannelConnectivity.READY
            try:
                self.description = await self._stub.Describe(
                    worker_pb2.DescribeRequest(), timeout=DESCRIBE_LIMIT_S, wait_for_ready=True
                )
                self._events.on_description(self.description)
                backoff_s = FIRST_BACKOFF_S
                if await self._watch():
                    continue
            except grpc.aio.AioRpcError as error:
                log.info("worker %s: %s", self.address, error.code().name)
                if connected and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    self._events.on_lost(self)
            except TimeoutError:
                log.warning("worker %s fell silent", self.address)
                self._events.on_lost(self)
            self.description = None
            self.changed()
            await asyncio.sleep(backoff_s)
            backoff_s = min(MAX_BACKOFF_S, 2 * backoff_s)

    async def _watch(self) -> bool:
        """True if there is a newer channel to watch on, False at the end of the stream.

        Raises:
            TimeoutError: nothing came for LOST_LIMIT_S.
        """
        stub = self._stub
        call = stub.WatchLoad(worker_pb2.WatchLoadRequest())
        self.hear()
        self._told = False
        try:
            while stub is self._stub:
                async with asyncio.timeout(None) as self._watching:
                    load = await call.read()
                if not isinstance(load, worker_pb2.WorkerLoad):
                    return False
                self._take_in(load)
            return True
        finally:
            self._watching = None
            self.failures.forget_unsure()
            call.cancel()

    def _take_in(self, load: worker_pb2.WorkerLoad) -> None:
        self.hear()
        if not self._told:
            for lease in self._leases:
                lease.wait_anew()
        reported = HeldLoad(load.running + load.waiting, load.steps_left)
        own = HeldLoad(self.in_flight, self.steps_left)
        foreign = HeldLoad() if self._wiring.alone else foreign_load(reported, own)
        if not self._told or load != self._load or foreign != self._foreign:
            self._told, self._load, self._foreign = True, load, foreign
            self._step_s = tuple(value / 1e3 for value in load.step_ms)
            self.changed()

    async def close(self, grace_s: float | None = None) -> None:
        """Close the channel; requests on it get `grace_s` to end."""
        await self._channel.close(grace_s)
