"""One worker as a gateway sees it: the connection, what the worker last said, and the requests that we sent there.

It keeps what it hears. What that makes of the worker's health is judged by `outlier_detection`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Any

import grpc

from t2i_gateway.events import read_worker_event
from t2i_gateway.workers.failures import WorkerFailures
from t2i_gateway.workers.other_gateways import OtherGateways
from t2i_gateway.workers.parts import PartsOfWorkers
from t2i_gateway.workers.slot import Slot
from t2i_policy.backoff import Backoff
from t2i_policy.batch_limit import OwedSteps, batch_limit, longest_step_s
from t2i_policy.image_size import ImageSize, SizeCost, step_cost_of
from t2i_policy.level import Level
from t2i_policy.outliers import HealthState, WorkerHealth, WorkReport
from t2i_policy.pool_view import WorkerView
from t2i_policy.profile import step_time
from t2i_policy.request.other_gateways import HeldLoad, foreign_load
from t2i_protos.v1 import worker_pb2, worker_pb2_grpc
from t2i_runtime.tracing import WORKER_METHOD

log = logging.getLogger(__name__)
BACKOFF = Backoff(first_s=0.1, most_s=2.0)
DESCRIBE_LIMIT_S = 2.0
KEEP_LATENT_LIMIT_S = 2.0
HOLD_MODEL_LIMIT_S = 5.0
ROUNDING = 1e-6  # of places
OLDER_LIMIT_S = 600.0  # for what runs on a channel that has a newer one
OpenChannel = Callable[[str], grpc.aio.Channel]
Headers = tuple[tuple[str, str], ...]
WorkerCall = Any  # grpc.aio.UnaryStreamCall; its stubs are not generic everywhere
CHANNEL_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # each its own connection: one begun anew must not get the dead one
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


@dataclass(frozen=True, slots=True)
class Wiring:
    """How workers are reached. `alone` = no other gateway sends to them, so what we sent is the whole truth about their
    batches. `profiled_digests`: what the pool's profile was measured on, for each of its models by name."""

    open_channel: OpenChannel
    alone: bool
    profiled_digests: Mapping[str, str] = field(default_factory=dict)
    others: OtherGateways = field(default_factory=OtherGateways)
    parts: PartsOfWorkers = field(default_factory=PartsOfWorkers)


@dataclass(slots=True)
class LoadWatch:
    """One stream of a worker's load: whether a message came since the last look, and what was judged then."""

    has_news: bool = False
    judged: WorkReport | None = None
    reading: asyncio.Timeout | None = None

    def end(self) -> None:
        """Give the stream up, as the worker is silent for too long."""
        if self.reading is not None and not self.reading.expired():
            self.reading.reschedule(0.0)


class WorkerConnection:
    """One worker. `on_change` hears that its view changed, `on_judged` that a request changed its health.

    `clock` is that of deadlines, `by_looks` that of judging.

    Attributes:
        level: What the plan assigned it.
        load: What the worker last said of itself.
        watch: The stream of its load; None while it is being reached.
        idle: Set while nothing of ours is there.
        state: How it may be used, among all workers of the pool.
        number: Higher for each channel.
    """

    def __init__(
        self,
        address: str,
        wiring: Wiring,
        clock: Callable[[], float],
        *,
        by_looks: Callable[[], float],
        on_change: Callable[[], None],
        on_judged: Callable[[], None],
    ) -> None:
        self.address = address
        self.description: worker_pb2.WorkerDescription | None = None
        self.level: Level | None = None
        self.slots: set[Slot] = set()
        self.idle = asyncio.Event()
        self.idle.set()
        self.health = WorkerHealth()
        self.state = HealthState.GOOD
        self._clock = clock
        self.failures = WorkerFailures(lambda: self.health, self._judged, by_looks)
        self.told_ejections = 0
        self.load = worker_pb2.WorkerLoad()
        self.watch: LoadWatch | None = None
        self.number = 0
        self._on_change = on_change
        self._on_judged = on_judged
        self._wiring = wiring
        self._step_ms: tuple[float, ...] = ()
        self._step_s: tuple[float, ...] = ()
        self._foreign = HeldLoad()
        self._view: WorkerView | None = None
        self._open()
        self._closing: set[asyncio.Task[None]] = set()  # of channels that have a newer one

    @property
    def name(self) -> str:
        """The worker's own name once known, else its address."""
        return self.description.name if self.description else self.address

    @property
    def model(self) -> str:
        """Which of the pool's models it holds or loads, by name, as it last said; empty: the pool's own."""
        return self.load.model

    @property
    def is_reloading(self) -> bool:
        """True while it loads another model than the one that it described itself by."""
        return self.description is not None and self.load.model != self.description.model

    @property
    def ready(self) -> bool:
        """True if it takes requests."""
        load = self.load
        return self.description is not None and load.ready and not load.draining and not self.is_reloading

    @property
    def takes_requests(self) -> bool:
        """True if it may have them, as its view says."""
        made = self._view
        return made.ready if made is not None else self.ready and self.state is not HealthState.EJECTED

    @property
    def is_idle(self) -> bool:
        """True if it takes requests, is no worse than others, and nothing runs or waits there, of whomever."""
        load = self.load
        busy = self.slots or load.running or load.waiting or load.background
        return self.ready and self.state is HealthState.GOOD and not self.failures.failing and not busy

    @property
    def view(self) -> WorkerView:
        """The snapshot that decisions see. A worker on trial takes one request at a time."""
        if self._view is None:
            held, load = [slot for slot in self.slots if slot.is_held], self.load
            own = _held_load(held)
            cap = min(1, load.batch_cap) if self.state is HealthState.ON_TRIAL else load.batch_cap
            in_flight = ceil(own.places + self._foreign.places - ROUNDING)
            running = min(cap, in_flight)
            self._view = WorkerView(
                name=self.name,
                ready=self.takes_requests,
                running=running,
                waiting=max(0, in_flight - cap),
                batch_cap=cap,
                step_s=self._step_s,
                fixed_s=load.fixed_ms / 1e3,
                steps_left=own.steps + self._foreign.steps,
                group=self.description.group if self.description else "",
                level=self.level,
                unproven=self.failures.failing,
                batch_limit=batch_limit(self._step_s, self._longest_step_s(held, own.places)),
                # A place is heard of when its image is on its way here: then the next step has begun without it.
                boundary_s=step_time(self._step_s, running) if running else 0.0,
                model=self.model,
            )
        return self._view

    @property
    def _own(self) -> HeldLoad:
        return _held_load([slot for slot in self.slots if slot.is_held])

    def _longest_step_s(self, held: Sequence[Slot], places: float) -> float:
        """What the deadlines of ours bear, as of now, and those of the others, as the worker last said."""
        now_s, fixed_s = self._clock(), self.load.fixed_ms / 1e3
        owed = [OwedSteps(slot.deadline_s - now_s - fixed_s * slot.step_cost, slot.owed_steps) for slot in held]
        own = longest_step_s(owed, step_time(self._step_s, ceil(places - ROUNDING)))
        return min(own, self.load.longest_step_ms / 1e3 or inf)

    def step_cost(self, size: ImageSize) -> float:
        """What a step of this size costs here, as the worker measured."""
        told = self.description
        if told is None:
            return 1.0
        measured = (SizeCost(ImageSize(one.width, one.height), one.step_cost) for one in told.sizes)
        return step_cost_of(size, ImageSize(told.width, told.height), measured)

    def take_slot(self, steps: int, deadline_s: float = inf, step_cost: float = 1.0, step_share: float = 1.0) -> Slot:
        """A place for a request of this many steps."""
        slot = Slot(self.number, steps, self.changed, deadline_s, step_cost, step_share)
        self.slots.add(slot)
        self.idle.clear()
        self._view = None
        return slot

    def leave_slot(self, slot: Slot) -> None:
        """Give a place back. It may have been given back before."""
        self.slots.discard(slot)
        if not self.slots:
            self.idle.set()
        if slot.is_held:
            self.changed()

    def changed(self) -> None:
        """Forget the snapshot and wake who waits for a slot."""
        self._view = None
        self._on_change()

    def set_health(self, health: WorkerHealth) -> bool:
        """Take in what the worker was judged to be. True if that differs from before."""
        if health == self.health:
            return False
        self.health, self._view = health, None
        return True

    def _judged(self, health: WorkerHealth) -> None:
        if self.set_health(health):
            self._on_judged()

    def set_state(self, state: HealthState) -> bool:
        """Take in how the worker may be used from now on. True if that differs from before."""
        if state is self.state:
            return False
        self.state, self._view = state, None
        return True

    def _open(self) -> None:
        """Begin a channel. Its streams of images are read as they pass on."""
        self._channel = self._wiring.open_channel(self.address)
        self._stub = worker_pb2_grpc.WorkerStub(self._channel)
        self._generate: Any = self._channel.unary_stream(
            f"/{WORKER_METHOD}",
            request_serializer=worker_pb2.WorkerGenerateRequest.SerializeToString,
            response_deserializer=read_worker_event,
        )

    def generate(self, request: worker_pb2.WorkerGenerateRequest, limit_s: float, headers: Headers = ()) -> WorkerCall:
        """Send a request; read the call for its events."""
        return self._generate(request, timeout=limit_s, metadata=headers or None)

    async def hold_model(self, model: str, revision: int) -> None:
        """Have the worker hold this one of the pool's models. Orders of a lower revision than before are ignored there.

        Raises:
            grpc.aio.AioRpcError: it cannot be reached, or it does not take the order.
        """
        request = worker_pb2.HoldModelRequest(model=model, revision=revision)
        await self._stub.HoldModel(request, timeout=HOLD_MODEL_LIMIT_S)

    async def keep_latent(self, held_id: str) -> Sequence[worker_pb2.StoredLatent]:
        """Let the worker store a latent that it set aside; returns what was stored.

        Raises:
            grpc.aio.AioRpcError: it cannot be reached, or not in time.
        """
        answer = await self._stub.KeepLatent(worker_pb2.KeepLatentRequest(held_id=held_id), timeout=KEEP_LATENT_LIMIT_S)
        return list(answer.stored)

    def watch_latents(self) -> WorkerCall:
        """What lies in the worker's own store; read the call for its messages, each within what the last promised."""
        return self._stub.WatchLatents(worker_pb2.WatchLatentsRequest())

    def renew(self) -> None:
        """Reach the worker over a new channel from now on. What runs on the old one may end."""
        self.number += 1
        closing = asyncio.create_task(self._channel.close(OLDER_LIMIT_S))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._open()

    def _begin_anew(self) -> None:
        """The connection is dead, and with it what runs on it; that may begin anew on this worker too."""
        self.renew()
        for slot in self.slots:
            slot.give_up()

    async def run(self) -> None:
        """Keep watching this worker until cancelled; a lost one is tried again with growing pauses.

        A connection that was there and brings nothing is given up for another one. TCP sends again what was not
        acknowledged, after pauses that double. So it would learn late that the network has healed. One that is still
        being made is left alone, as it may need longer than a first attempt gets.
        """
        pauses = BACKOFF.pauses()
        while True:
            connected = self._channel.get_state() is grpc.ChannelConnectivity.READY
            try:
                await self._describe()
                pauses = BACKOFF.pauses()
                if await self._watch():
                    continue
            except grpc.aio.AioRpcError as error:
                log.info("worker %s: %s", self.address, error.code().name)
                if connected and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    self._begin_anew()
            except TimeoutError:
                log.warning("worker %s fell silent", self.address)
                self._begin_anew()
            self._wiring.parts.forget(self.name)
            self.description = None
            self.changed()
            await asyncio.sleep(next(pauses))

    async def _describe(self) -> None:
        request = worker_pb2.DescribeRequest()
        self.description = await self._stub.Describe(request, timeout=DESCRIBE_LIMIT_S, wait_for_ready=True)
        if self.description.model_digest != self._wiring.profiled_digests.get(self.description.model, ""):
            text = "worker %s: the profile was measured on another model; measure this one with t2ictl profile"
            log.warning(text, self.description.name)
        self._wiring.parts.take_in(self.description)

    async def _watch(self) -> bool:
        """True if there is a newer channel to watch on, or another model to hear of; False at the end of the stream.

        Raises:
            TimeoutError: the watch was ended, as nothing came.
        """
        stub = self._stub
        call = stub.WatchLoad(worker_pb2.WatchLoadRequest())
        self.watch = watch = LoadWatch()
        try:
            while stub is self._stub:
                async with asyncio.timeout(None) as watch.reading:
                    load = await call.read()
                if not isinstance(load, worker_pb2.WorkerLoad):
                    return False
                watch.has_news = True
                self._take_in(load)
                if load.ready and self.is_reloading:
                    await asyncio.sleep(BACKOFF.first_s)  # it may say one thing here and another there
                    return True
            return True
        finally:
            self.watch = None
            self.failures.forget_unsure()
            call.cancel()

    def _take_in(self, load: worker_pb2.WorkerLoad) -> None:
        before, self.load = self._view, load
        step_ms = tuple(load.step_ms)
        if step_ms != self._step_ms:  # they seldom change, and there are as many as places in the batch
            self._step_ms, self._step_s = step_ms, tuple(value / 1e3 for value in step_ms)
        reported = HeldLoad(load.places or load.running + load.waiting, load.steps_left)
        if not self._wiring.alone:
            self._foreign = foreign_load(reported, self._own)
            self._wiring.others.take_in(load)
        self._view = None
        if self.view != before:
            self._on_change()

    async def close(self) -> None:
        """Close every channel."""
        self._wiring.parts.forget(self.name)
        for closing in self._closing:
            closing.cancel()
        await self._channel.close()


def _held_load(held: Sequence[Slot]) -> HeldLoad:
    """What requests take of a batch that hold their places in it; those that do not owe no steps."""
    places = steps = 0.0
    for slot in held:
        places += slot.step_cost
        steps += slot.owed_steps * slot.step_cost
    return HeldLoad(places, round(steps))
