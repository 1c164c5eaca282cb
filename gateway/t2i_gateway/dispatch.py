"""Dispatch: requests for one model wait here for a slot and leave with an attempt at a worker that holds it.

The policy's queue says whose turn it is. The policy's `SlotTurns` says which slots are left to other gateways.
Admission bounds the queue. Nothing waits for ever. A request leaves with an attempt, or when what is left to its
deadline is too short. It also leaves when the model has had no worker for NO_WORKERS_GRACE_S. One that may move to
another model then leaves at once.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import inf

from t2i_api.gateway import GatewayPart
from t2i_gateway.attempt import Attempt
from t2i_gateway.errors import DeadlineExceeded, ModelGone, RequestRefused
from t2i_gateway.log_limit import LogLimit
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.workers.pool import WorkerPool
from t2i_policy.image_size import counted_steps
from t2i_policy.level import Level
from t2i_policy.policies import ServingPolicy
from t2i_policy.pool_view import NOBODY, OtherQueues, PoolView, WorkerView
from t2i_policy.queue import FairQueue, WaitingRequest
from t2i_policy.request.admission import Refused, refuse_late, say_no_workers
from t2i_policy.request.latent_holders import HolderLine
from t2i_policy.request.placement import Placement
from t2i_policy.request.retry_turns import RetryTurns
from t2i_policy.slot_turns import SlotTurns
from t2i_protos.v1 import worker_pb2
from t2i_runtime.tracing import within_span

NO_WORKERS_GRACE_S = 5.0


class ModelLate(Exception):
    """The model's workers would be late for this request; another model's may not be. Nobody was told yet."""

    def __init__(self, late: Refused) -> None:
        super().__init__(late.reason)
        self.late = late


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """What a request needs: a worker for `level` by `deadline_s` (event loop's clock), not one of `excluded`.

    Workers that it `left` were too slow for it; they may take it again when no other is ready.
    Each of its steps costs `step_cost` of the default size, and `steps_share` of the level's run. `holders` names the
    workers that have its latent at the moment, None: all can reach it. It goes to one of these while there are any.
    `may_move`: it would rather be decided anew than be late, or wait for a model that no worker holds.
    """

    tenant: str
    level: Level
    deadline_s: float
    excluded: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    step_cost: float = 1.0
    steps_share: float = 1.0
    holders: Callable[[], frozenset[str]] | None = None
    may_move: bool = False

    @property
    def cost(self) -> float:
        return self.step_cost * self.steps_share


@dataclass(slots=True, eq=False, kw_only=True)
class QueuedRequest(WaitingRequest):
    """One waiting request, and who waits for its attempt."""

    place: QueuePlace
    ready: "asyncio.Future[Attempt]"


class Dispatcher:
    """The queue of one gateway for one of the pool's models; "" is its own. Used from one event loop.

    `name`: what metrics and errors call the model.
    """

    def __init__(
        self,
        policy: ServingPolicy,
        workers: WorkerPool,
        part: GatewayPart,
        metrics: GatewayMetrics,
        *,
        model: str = "",
        name: str = "",
    ) -> None:
        self.model = model
        self._name = name
        self._policy = policy
        self._workers = workers
        self.gateways = part.replicas
        self._metrics = metrics
        self._queue: FairQueue[QueuedRequest] = FairQueue(part.tenant_weights)
        self._turns = SlotTurns(self._queue)
        self._retry_turns = RetryTurns()
        self._made_view = NOBODY  # the last one: a request asks three times while little changes
        self._look_again: asyncio.TimerHandle | None = None
        self._numbers = itertools.count()
        self._loop = asyncio.get_running_loop()
        self._forlorn: asyncio.TimerHandle | None = None
        self.moved_lines = LogLimit(self._loop.time)
        workers.on_change(self.pump)

    def weigh(self, tenant: str, weight: float) -> None:
        """Give a tenant a weight beside those of the pool's document."""
        self._queue.weights = {**self._queue.weights, tenant: weight}

    def view(self, tenant: str | None = None) -> PoolView:
        """The pool as decisions see it now; with the wait of a request of `tenant` if one is named."""
        queue, views = self._queue, self._views
        if queue.count and sum(view.free_slots for view in views) > self._turns.left:
            ahead: int | None = 0  # who still waits, waits for others than the free ones
        else:
            ahead = None if tenant is None else queue.steps_ahead(tenant)
        others = self._others
        if tenant is not None:
            others = self._turns.sharing(others, tenant)
        made = self._made_view
        seen = (views, queue.count, queue.steps, ahead, self.gateways, others)
        if seen != (made.workers, made.queued, made.queued_steps, made.ahead_steps, made.gateways, made.others):
            made = self._made_view = PoolView(*seen)
        return made

    @property
    def _views(self) -> tuple[WorkerView, ...]:
        return self._workers.views_of(self.model)

    @property
    def _others(self) -> OtherQueues | None:
        return self._workers.others.queues(self.model) if self.gateways > 1 else None

    def tell_others(self, request: worker_pb2.WorkerGenerateRequest, rate_rps: float) -> None:
        """Let the other gateways know, through a worker, what waits here and how many requests a second come."""
        self._workers.others.tell(request, self._queue, rate_rps, self.model)

    def holder_line(self, holders: frozenset[str], max_queued: int) -> HolderLine:
        """Who waits for one of these workers because it holds their latent. Nobody may where the queue is full."""
        free = any(view.free_slots for view in self._views if view.name in holders)
        if not free and self.num_queued >= max_queued:
            return HolderLine(frozenset())
        bound = ((queued.steps, queued.place.holders) for queued in self._queue if queued.place.holders)
        return HolderLine(holders, sum(steps for steps, able in bound if able() & holders))

    @property
    def num_queued(self) -> int:
        """How many requests wait for a slot."""
        return self._queue.count

    def queue_room(self, tenant: str, max_queued: int) -> int:
        """How many may wait before a request of this tenant is one too many, as `decide_admission` counts them."""
        return self._queue.room(tenant, max_queued)

    async def attempt(self, place: QueuePlace) -> Attempt:
        """Wait for a slot.

        Raises:
            DeadlineExceeded: none came in time, and how long the image takes is not known.
            RequestRefused: none came in time for the image.
            ModelLate: as before, of a request that may move.
            ModelGone: no worker is left that could take it.
        """
        self._check_any_left(place)
        queued = QueuedRequest(
            tenant=place.tenant,
            deadline_s=place.deadline_s,
            number=next(self._numbers),
            steps=counted_steps(place.level.cost, place.cost),
            choosy=bool(place.excluded or place.left) or place.holders is not None,
            place=place,
            ready=self._loop.create_future(),
        )
        self._queue.add(queued)
        attempt: Attempt | None = None
        try:
            with within_span("queue", {"t2i.queued": self.num_queued}):
                self.pump()
                attempt = await self._handed_out(queued)
            return attempt
        finally:
            if attempt is None:
                self._give_back(queued)

    async def _handed_out(self, queued: QueuedRequest) -> Attempt:
        """Wait until it is, as long as an idle worker would be in time."""
        if queued.ready.done():
            return queued.ready.result()
        place = queued.place
        least_s = self.view().for_cost(place.cost).alone_s(place.level.cost)
        try:
            async with asyncio.timeout_at(place.deadline_s - (least_s if least_s < inf else 0.0)):
                return await queued.ready
        except TimeoutError as error:
            if least_s == inf:
                raise DeadlineExceeded("the deadline passed while waiting for a worker") from error
            raise self._late(place, least_s) from error

    def pump(self) -> None:
        """Hand out every slot that is free: called whenever one may have become so."""
        able = [one for one in self._workers.connections if one.takes_requests and one.model == self.model]
        self._metrics.show_ready(self._name, sum(not one.failures.failing for one in able))
        self._watch_forlorn(len(able))
        if self._queue.count or self._turns.left:  # else nobody needs the workers' views, and they may stay unmade
            free = sum(view.free_slots for view in self._views)
            self._turns.look(free)
            if free:
                self._queue.serve(self._hand_out)
        self._look_later()
        self._metrics.show_queued(self._name, self.num_queued)

    def placement(self, place: QueuePlace) -> Placement | None:
        """Where a request would go now; `Explain` tells it."""
        left_s = place.deadline_s - self._loop.time()
        view = self.view().for_cost(place.cost)
        return self._policy.place(place.level, view, left_s, self._excluded(place))

    def _excluded(self, place: QueuePlace) -> frozenset[str]:
        """Workers that may not take it; those that it left, and those without its latent, only while others can."""
        excluded = place.excluded
        if place.holders is None and not place.left:
            return excluded
        ready = frozenset(view.name for view in self._views if view.ready)
        if ready - excluded - place.left:
            excluded |= place.left
        able = frozenset() if place.holders is None else (ready & place.holders()) - excluded
        return excluded | (ready - able) if able else excluded

    def _hand_out(self, queued: QueuedRequest) -> bool:
        """Give it a slot, if one is free for it. One that nobody awaits any more, or that would be late, leaves."""
        if queued.ready.done():
            self._queue.remove(queued)
            return False
        placement, left_s = self.placement(queued.place), queued.deadline_s - self._loop.time()
        free = sum(view.free_slots for view in self._views)
        if placement is None:
            queued.choosy |= free > 0
            return False
        if placement.is_late(left_s):
            self._queue.remove(queued)
            queued.ready.set_exception(self._late(queued.place, placement.estimated_s))
            return False
        if not self._turns.may_take(self._others, free, self._loop.time()):
            return False
        self._metrics.placements.labels(placement.reason).inc()
        connection = self._workers.by_name(placement.worker)
        place = queued.place
        steps = counted_steps(place.level.steps_run, place.steps_share)
        slot = connection.take_slot(steps, queued.deadline_s, place.step_cost, place.level.step_share)
        queued.ready.set_result(Attempt(connection, slot))
        return True

    def _look_later(self) -> None:
        """Pump when a slot that was left to others may be taken. One whose time is over has nobody here who fits it."""
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None
        at_s = self._turns.look_again_s
        if self._queue.count and at_s is not None and at_s > self._loop.time():
            self._look_again = self._loop.call_at(at_s, self.pump)

    def _late(self, place: QueuePlace, estimated_s: float) -> RequestRefused | ModelLate:
        late = refuse_late(estimated_s, place.deadline_s - self._loop.time())
        return ModelLate(late) if place.may_move else self.refused(late, place.level)

    def refused(self, refused: Refused, level: Level) -> RequestRefused:
        """Counts a refusal at this level, and says in whose turn it may come back."""
        self._metrics.refusals.labels(refused.reason).inc()
        images_per_s = self.view().of_model(level.model).steps_per_s / level.cost / self.gateways
        return RequestRefused(self._retry_turns.give(refused, self._loop.time(), level.model, images_per_s))

    def _give_back(self, queued: QueuedRequest) -> None:
        """Its waiter is gone: leave the queue, or end an attempt that was handed out in the same instant."""
        granted = queued.ready.done() and not queued.ready.cancelled() and queued.ready.exception() is None
        if granted:
            queued.ready.result().end()
        queued.ready.cancel()
        self._queue.remove(queued)
        self._look_later()
        self._metrics.show_queued(self._name, self.num_queued)

    def _check_any_left(self, place: QueuePlace) -> None:
        excluded = place.excluded
        if excluded and all(view.name in excluded for view in self._views if view.ready):
            raise ModelGone("the request failed on every worker that could take it")

    def _watch_forlorn(self, ready: int) -> None:
        if ready and self._forlorn is not None:
            self._forlorn.cancel()
            self._forlorn = None
        elif not ready:
            if self._forlorn is None:
                self._forlorn = self._loop.call_later(NO_WORKERS_GRACE_S, self._fail_all)
            self._fail(queued for queued in self._queue if queued.place.may_move)

    def _fail_all(self) -> None:
        self._forlorn = None
        self._fail(self._queue)

    def _fail(self, waiting: Iterable[QueuedRequest]) -> None:
        for queued in waiting:
            if not queued.ready.done():
                queued.ready.set_exception(ModelGone(say_no_workers(self.model)))
