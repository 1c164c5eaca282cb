"""Dispatch: requests wait here for a slot, the nearest deadline first, and leave with a lease on a worker.

The queue is bounded by admission. Nothing waits for ever: a request leaves with a lease, at its deadline, or when the
pool has had no worker for NO_WORKERS_GRACE_S.
"""

import asyncio
import heapq
import itertools
from dataclasses import dataclass, field

from t2i_gateway.errors import DeadlineExceeded, GatewayError, WorkersUnavailable
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.workers import Lease, WorkerPool
from t2i_policy.placement import Placement, choose_worker
from t2i_policy.views import PoolView

NO_WORKERS_GRACE_S = 5.0


@dataclass(order=True, slots=True)
class Ticket:
    """One waiting request; ordered by deadline (seconds of the event loop's clock), then by arrival."""

    deadline_s: float
    number: int
    steps: int = field(compare=False)
    excluded: frozenset[str] = field(compare=False)
    ready: "asyncio.Future[Lease]" = field(compare=False)


class Dispatcher:
    """See the module. One event loop."""

    def __init__(self, workers: WorkerPool, metrics: GatewayMetrics) -> None:
        self._workers = workers
        self._metrics = metrics
        self._waiting: list[Ticket] = []
        self._queued = 0
        self._queued_steps = 0
        self._numbers = itertools.count()
        self._loop = asyncio.get_running_loop()
        self._forlorn: asyncio.TimerHandle | None = None
        workers.on_change(self.pump)

    def view(self) -> PoolView:
        """The pool as decisions see it now."""
        return PoolView(self._workers.views, self._queued, self._queued_steps)

    async def lease(self, steps: int, deadline_s: float, excluded: frozenset[str]) -> Lease:
        """Wait for a slot. `deadline_s` on the event loop's clock.

        Raises:
            DeadlineExceeded: none came in time.
            WorkersUnavailable: no worker is left that could take it.
        """
        self._check_any_left(excluded)
        ticket = Ticket(deadline_s, next(self._numbers), steps, excluded, self._loop.create_future())
        heapq.heappush(self._waiting, ticket)
        self._count(+1, steps)
        lease: Lease | None = None
        try:
            self.pump()
            async with asyncio.timeout_at(deadline_s):
                lease = await ticket.ready
            return lease
        except TimeoutError as error:
            raise DeadlineExceeded("the deadline passed while waiting for a worker") from error
        finally:
            self._count(-1, steps)
            if lease is None:
                self._give_back(ticket)

    def pump(self) -> None:
        """Hand out every slot that is free: called whenever one may have become so."""
        view = self.view()
        ready = len(view.ready)
        self._metrics.ready_workers.set(ready)
        self._watch_forlorn(ready)
        passed_over: list[Ticket] = []
        while self._waiting:
            ticket = heapq.heappop(self._waiting)
            if ticket.ready.done():
                continue
            placement = self._choose(ticket)
            if placement is None:
                passed_over.append(ticket)
                if not ticket.excluded:
                    break
                continue
            self._metrics.placements.labels(placement.reason).inc()
            ticket.ready.set_result(self._workers.by_name(placement.worker).lease(ticket.steps))
        for ticket in passed_over:
            heapq.heappush(self._waiting, ticket)

    def placement(self, steps: int, left_s: float) -> Placement | None:
        """Where a request would go now; for Explain."""
        view = self.view()
        return choose_worker(view.ready, steps, left_s, view.occupancy)

    def _choose(self, ticket: Ticket) -> Placement | None:
        view = self.view()
        left_s = ticket.deadline_s - self._loop.time()
        return choose_worker(view.ready, ticket.steps, left_s, view.occupancy, ticket.excluded)

    def _give_back(self, ticket: Ticket) -> None:
        """Its waiter is gone: leave the queue, or end a lease that was handed out in the same instant."""
        granted = ticket.ready.done() and not ticket.ready.cancelled() and ticket.ready.exception() is None
        if granted:
            ticket.ready.result().end()
        ticket.ready.cancel()
        if ticket in self._waiting:
            self._waiting.remove(ticket)
            heapq.heapify(self._waiting)

    def _count(self, change: int, steps: int) -> None:
        self._queued += change
        self._queued_steps += change * steps
        self._metrics.queue_depth.set(self._queued)

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
        for ticket in self._waiting:
            if not ticket.ready.done():
                ticket.ready.set_exception(error)
        self._waiting.clear()
