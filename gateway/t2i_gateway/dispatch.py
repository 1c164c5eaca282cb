"""Dispatch: requests wait here for a slot and leave with an attempt at a worker.

Between tenants the one furthest behind its share goes first (`fair_queue`), within a tenant the nearest deadline. The
queue is bounded by admission. Nothing waits for ever: a request leaves with an attempt, at its deadline, when its turn
comes too late for it, or when the pool has had no worker for NO_WORKERS_GRACE_S.
"""

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from t2i_api.pool import GatewayPart
from t2i_gateway.attempt import Attempt
from t2i_gateway.errors import DeadlineExceeded, GatewayError, RequestRefused, WorkersUnavailable
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.workers.pool import WorkerPool
from t2i_policy.fair_queue import DEFAULT_WEIGHT, FairClock, next_tenant, queue_limit, steps_ahead
from t2i_policy.level import Level
from t2i_policy.policies import ServingPolicy
from t2i_policy.pool_view import PoolView
from t2i_policy.request.admission import Refused, refuse_late
from t2i_policy.request.latent_holders import HolderLine
from t2i_policy.request.placement import Placement
from t2i_protos.v1 import worker_pb2

NO_WORKERS_GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """What a request needs: a worker for `level` by `deadline_s` (event loop's clock), not one of `excluded`.

    `holders` names the workers that have its latent at the moment, None: all can reach it. It goes to one of these as
    long as there are any.
    """

    tenant: str
    level: Level
    deadline_s: float
    excluded: frozenset[str] = frozenset()
    holders: Callable[[], frozenset[str]] | None = None


@dataclass(order=True, slots=True)
class QueuedRequest:
    """One waiting request; ordered by deadline, then by arrival."""

    deadline_s: float
    number: int
    place: QueuePlace = field(compare=False)
    ready: "asyncio.Future[Attempt]" = field(compare=False)


class Dispatcher:
    """The queue of one gateway. Used from one event loop."""

    def __init__(self, policy: ServingPolicy, workers: WorkerPool, part: GatewayPart, metrics: GatewayMetrics) -> None:
        self._policy = policy
        self._workers = workers
        self._weights = part.tenant_weights
        self.gateways = part.replicas
        self._metrics = metrics
        self._waiting: dict[str, list[QueuedRequest]] = {}  # by tenant, each a heap
        self._queued: Counter[str] = Counter()
        self._queued_steps: Counter[str] = Counter()
        self._bound: dict[int, QueuedRequest] = {}  # those that wait for a holder of their latent, by number
        self._fair = FairClock()
        self._numbers = itertools.count()
        self._loop = asyncio.get_running_loop()
        self._forlorn: asyncio.TimerHandle | None = None
        workers.on_change(self.pump)

    def view(self, tenant: str | None = None) -> PoolView:
        """The pool as decisions see it now; with the wait of a request of `tenant` if one is named."""
        queued_steps, views = self._queued_steps.total(), self._workers.views
        if self._bound and any(view.free_slots for view in views):
            ahead: int | None = 0  # who still waits, waits for others than the free ones
        else:
            ahead = None if tenant is None else steps_ahead(self._queued_steps, tenant, self._weights)
        others = self._workers.others.queues if self.gateways > 1 else None
        return PoolView(views, self.num_queued, queued_steps, ahead, self.gateways, others)

    def tell_others(self, request: worker_pb2.WorkerGenerateRequest, rate_rps: float) -> None:
        """Let the other gateways know, through a worker, what waits here and how many requests a second come."""
        if self.gateways > 1:
            self._workers.others.tell(request, self.num_queued, self._queued_steps.total(), rate_rps)

    def demand_factor(self, rate_rps: float) -> float:
        """How many times the demand of this gateway (requests/s) the pool's is."""
        others = self._workers.others.queues
        if self.gateways == 1 or others is None or rate_rps <= 0:
            return self.gateways
        return 1 + others.rate_rps / rate_rps

    def holder_line(self, holders: frozenset[str], max_queued: int) -> HolderLine:
        """Who waits for one of these workers because it holds their latent. Nobody may where the queue is full."""
        free = any(view.free_slots for view in self._workers.views if view.name in holders)
        if not free and self.num_queued >= max_queued:
            return HolderLine(frozenset())
        waiting = (queued.place for queued in self._bound.values())
        steps = sum(place.level.steps_run for place in waiting if place.holders and place.holders() & holders)
        return HolderLine(holders, steps)

    @property
    def num_queued(self) -> int:
        """How many requests wait for a slot."""
        return self._queued.total()

    def queue_room(self, tenant: str, max_queued: int) -> int:
        """How many may wait before a request of this tenant is one too many, as `decide_admission` counts them."""
        limit = queue_limit(self._queued, tenant, self._weights, max_queued)
        return min(max_queued, limit + self.num_queued - self._queued[tenant])

    async def attempt(self, place: QueuePlace) -> Attempt:
        """Wait for a slot.

        Raises:
            DeadlineExceeded: none came in time.
            RequestRefused: one came, but too late for the image.
            WorkersUnavailable: no worker is left that could take it.
        """
        self._check_any_left(place.excluded)
        queued = QueuedRequest(place.deadline_s, next(self._numbers), place, self._loop.create_future())
        heapq.heappush(self._waiting.setdefault(place.tenant, []), queued)
        self._count(place, +1)
        if place.holders is not None:
            self._bound[queued.number] = queued
        attempt: Attempt | None = None
        try:
            self.pump()
            async with asyncio.timeout_at(place.deadline_s):
                attempt = await queued.ready
            return attempt
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed while waiting for a worker") from error
        finally:
            self._count(place, -1)
            self._bound.pop(queued.number, None)
            if attempt is None:
                self._give_back(queued)

    def pump(self) -> None:
        """Hand out every slot that is free: called whenever one may have become so."""
        ready = sum(view.ready for view in self._workers.views)
        self._metrics.ready_workers.set(sum(view.ready and not view.unproven for view in self._workers.views))
        self._watch_forlorn(ready)
        passed_over: list[QueuedRequest] = []
        while (tenant := next_tenant(self._fair, self._waiting)) is not None:
            queued = heapq.heappop(self._waiting[tenant])
            if not self._waiting[tenant]:
                del self._waiting[tenant]
            if queued.ready.done():
                continue
            left_s = queued.deadline_s - self._loop.time()
            excluded = self._excluded(queued.place)
            placement = self._policy.place(queued.place.level, self.view(), left_s, excluded)
            if placement is None:
                passed_over.append(queued)
                # One that may go anywhere found no slot, so nobody will. One that may not leaves free slots to others.
                if not excluded or not any(view.free_slots for view in self._workers.views):
                    break
                continue
            if placement.is_late(left_s):
                self._refuse(queued, refuse_late(placement.estimated_s, left_s))
            else:
                self._hand_out(queued, placement)
        for queued in passed_over:
            heapq.heappush(self._waiting.setdefault(queued.place.tenant, []), queued)

    def _excluded(self, place: QueuePlace) -> frozenset[str]:
        """Workers that may not take it: those excluded, and those without its latent while any other has it."""
        if place.holders is None:
            return place.excluded
        ready = frozenset(view.name for view in self._workers.views if view.ready)
        able = (ready & place.holders()) - place.excluded
        return place.excluded | (ready - able) if able else place.excluded

    def _hand_out(self, queued: QueuedRequest, placement: Placement) -> None:
        self._metrics.placements.labels(placement.reason).inc()
        place = queued.place
        weight = self._weights.get(place.tenant, DEFAULT_WEIGHT)
        self._fair = self._fair.served(place.tenant, place.level.steps_run, weight)
        connection = self._workers.by_name(placement.worker)
        queued.ready.set_result(Attempt(connection, connection.take_slot(place.level.steps_run, place.deadline_s)))
        self._bound.pop(queued.number, None)

    def _refuse(self, queued: QueuedRequest, refused: Refused) -> None:
        self._metrics.refusals.labels(refused.reason).inc()
        queued.ready.set_exception(RequestRefused(refused))

    def placement(self, place: QueuePlace) -> Placement | None:
        """Where a request would go now; `Explain` tells it."""
        left_s = place.deadline_s - self._loop.time()
        return self._policy.place(place.level, self.view(), left_s, self._excluded(place))

    def _give_back(self, queued: QueuedRequest) -> None:
        """Its waiter is gone: leave the queue, or end an attempt that was handed out in the same instant."""
        granted = queued.ready.done() and not queued.ready.cancelled() and queued.ready.exception() is None
        if granted:
            queued.ready.result().end()
        queued.ready.cancel()
        tenant = queued.place.tenant
        line = self._waiting.get(tenant, [])
        if queued in line:
            line.remove(queued)
            heapq.heapify(line)
            if not line:
                del self._waiting[tenant]

    def _count(self, place: QueuePlace, change: int) -> None:
        """Tenants that wait for nothing are forgotten: their number is not bounded."""
        for counts, amount in ((self._queued, change), (self._queued_steps, change * place.level.steps_run)):
            counts[place.tenant] += amount
            if not counts[place.tenant]:
                del counts[place.tenant]
        self._metrics.queue_depth.set(self.num_queued)

    def _check_any_left(self, excluded: frozenset[str]) -> None:
        if excluded and all(worker.name in excluded for worker in self.view().ready):
            raise WorkersUnavailable("the request failed on every worker that could take it")

    def _watch_forlorn(self, ready: int) -> None:
        if ready and self._forlorn is not None:
            self._forlorn.cancel()
            self._forlorn = None
        elif not ready and self._forlorn is None:
            self._forlorn = self._loop.call_later(NO_WORKERS_GRACE_S, self._fail_all)

    def _fail_all(self) -> None:
        self._forlorn = None
        error: GatewayError = WorkersUnavailable("no worker is ready")
        for queued in itertools.chain.from_iterable(self._waiting.values()):
            if not queued.ready.done():
                queued.ready.set_exception(error)
        self._waiting.clear()
