"""The simulated dispatch: requests wait for a slot, go to workers, come back from lost ones. Mirrors the gateways'.

queue and place (the policy's) -> start at the worker -> steps done -> image out; or the worker is lost -> elsewhere
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, inf

from t2i_policy.level import Level
from t2i_policy.policies import ServingPolicy
from t2i_policy.pool_view import OtherQueues, PoolView
from t2i_policy.queue import FairQueue, WaitingRequest
from t2i_policy.quick_dataclass import quick_dataclass
from t2i_policy.request.options import NOWHERE, Neighbourhood
from t2i_policy.slot_turns import SlotTurns
from t2i_simulator.clock import Clock
from t2i_simulator.neighbours import Neighbours
from t2i_simulator.outcomes import Fate
from t2i_simulator.stepping import SimulatedJob
from t2i_simulator.workers import SimulatedPool, SimulatedWorker

MAX_RETRIES = 2  # as the gateway's director
NO_WORKERS_GRACE_S = 5.0  # as the gateway's dispatcher
TOLD_EVERY_S = 0.25  # about what real gateways need, through the workers' loads


@dataclass(slots=True, eq=False, kw_only=True)
class SimulatedRequest(WaitingRequest):
    """A request in virtual time; its line is that of the level whose workers alone take it (None: any worker).

    `extra_steps` run before those of `level`. With `then` its image is drawn again at that level, if it lost more than
    `bears`; it `keeps` the first image meanwhile, which `kept` then names. `near` is what the cache had for it. Each
    step costs `step_cost` of the default size. `tries` counts the workers that lost it. Its client asked `gateway` and
    waits until `gives_up_s`, which is after the deadline; an image in between is late.
    """

    gives_up_s: float
    level: Level
    sent_to: Level | None = None
    excluded: frozenset[str] = frozenset()
    tries: int = 0
    gateway: int = 0
    step_cost: float = 1.0
    extra_steps: int = 0
    then: Level | None = None
    bears: float = 0.0
    keeps: bool = False
    kept: Level | None = None
    near: Neighbourhood = NOWHERE


@quick_dataclass(frozen=True, slots=True)
class End:
    """How a request ended: what it was served at (None if not), the steps run for it, and how many
    workers lost it before."""

    number: int
    fate: Fate
    at_s: float
    level: Level | None = None
    steps: int = 0
    retries: int = 0
    request: SimulatedRequest | None = None


Ended = Callable[[End], None]
#: Hands a request that no worker here can take to another model's workers, now; False if none can. True: only if one is
#: in time.
GoesElsewhere = Callable[[SimulatedRequest, float, bool], bool]


def _nowhere(request: SimulatedRequest, now_s: float, in_time: bool) -> bool:  # noqa: ARG001
    """All workers hold one model."""
    return False


@dataclass(slots=True, eq=False)
class _Run:
    """One request at one worker, from its first step until its image is out."""

    request: SimulatedRequest
    worker: SimulatedWorker
    level: Level
    steps: int
    lost: bool = False


class SimulatedDispatcher:
    """`ended` is called once for every request. `entries`: the cache entry by request number."""

    def __init__(
        self,
        clock: Clock,
        pool: SimulatedPool,
        policy: ServingPolicy,
        neighbours: Neighbours,
        ended: Ended,
        queues: Sequence[FairQueue[SimulatedRequest]],
        hears_every_s: tuple[float, ...] = (),
    ) -> None:
        self._clock = clock
        self._pool = pool
        self._policy = policy
        self._neighbours = neighbours
        self._queues = queues
        self._first = 0  # whose turn it is
        self._hears_every_s = hears_every_s or (TOLD_EVERY_S,) * len(queues)
        self._heard_s = [-inf] * len(queues)
        self._others: list[OtherQueues | None] = [None] * len(queues)
        self._looks_again_s = [-inf] * len(queues)
        self._turns = [SlotTurns(queue) for queue in queues]
        self._runs: dict[int, _Run] = {}
        self._forlorn_since_s: float | None = None
        self.entries: dict[int, int] = {}
        self.elsewhere: GoesElsewhere = _nowhere
        self._ended = ended

    def view(self, now_s: float, gateway: int = 0, tenant: str | None = None) -> PoolView:
        """The pool as decisions of this gateway see it now; with the wait of a request of `tenant` if one is named."""
        queue, turns, ahead = self._queues[gateway], self._turns[gateway], None
        if queue.count and self._pool.free_slots(now_s) > turns.left:
            ahead = 0  # who still waits, waits for others than the free ones
        elif queue.count and tenant is not None:
            ahead = queue.steps_ahead(tenant)
        others = self._told(now_s, gateway)
        if others is not None and tenant is not None:
            others = turns.sharing(others, tenant)
        return self._pool.view(now_s, queue.count, queue.steps, ahead, others)

    def queue_room(self, gateway: int, tenant: str, max_queued: int) -> int:
        """How many may wait there before a request of this tenant is one too many."""
        return self._queues[gateway].room(tenant, max_queued)

    def queued(self, gateway: int) -> int:
        """How many wait there."""
        return self._queues[gateway].count

    def _told(self, now_s: float, gateway: int) -> OtherQueues | None:
        """What this gateway last heard of the others' queues."""
        every_s = self._hears_every_s[gateway]
        if len(self._queues) == 1 or every_s == inf:
            return None
        if now_s >= self._heard_s[gateway] + every_s:
            self._heard_s[gateway] = now_s
            waiting = [n for n, queue in enumerate(self._queues) if n != gateway and queue.count]
            queues = [self._queues[n] for n in waiting]
            tell_tenants = all(self._hears_every_s[n] < inf for n in waiting)
            self._others[gateway] = OtherQueues(
                sum(queue.count for queue in queues),
                sum(queue.steps for queue in queues),
                len(queues),
                by_tenant=tuple(queue.steps_by_tenant() for queue in queues) if tell_tenants else (),
            )
        return self._others[gateway]

    def steps_for(self, level: Level, gateway: int) -> int:
        """Steps that wait there for workers of this level alone."""
        return sum(request.steps for request in self._queues[gateway] if request.sent_to == level)

    def is_held_by(self, name: str) -> bool:
        """True if that worker has a request, or an image on its way out."""
        return any(run.worker.name == name for run in self._runs.values())

    def submit(self, request: SimulatedRequest, now_s: float) -> None:
        """An admitted request waits for its slot."""
        self._queues[request.gateway].add(request)
        self.pump(now_s)
        if request.waits:
            self._clock.at(request.deadline_s, self._expire, request)
            if self.elsewhere is not _nowhere:
                least_s = self.view(now_s, request.gateway).for_cost(request.step_cost).alone_s(request.level.cost)
                self._clock.at(max(now_s, request.deadline_s - least_s), self._leave_late, request)

    def pump(self, now_s: float) -> None:
        """Hand out every slot that is free: called whenever one may have become so. Gateways hear of it in turn."""
        self._first = (self._first + 1) % len(self._queues)
        for gateway in (*range(self._first, len(self._queues)), *range(self._first)):
            queue, turns = self._queues[gateway], self._turns[gateway]
            if turns.look_again_s is not None:
                turns.look(self._pool.free_slots(now_s))
            if queue.count:
                queue.serve(partial(self._start, now_s))
                self._look_later(now_s, gateway)

    def _look_later(self, now_s: float, gateway: int) -> None:
        """Whether a slot that it leaves to others is still free."""
        at_s = self._turns[gateway].look_again_s
        if at_s is not None and at_s > now_s >= self._looks_again_s[gateway]:
            self._looks_again_s[gateway] = at_s
            self._clock.at(at_s, self._pump_again, None)

    def _pump_again(self, now_s: float, _: None) -> None:
        self.pump(now_s)

    def ready_changed(self, now_s: float) -> None:
        """Workers came or went: hand out slots, or give up when there has been no worker for too long."""
        if self.view(now_s).ready:
            self._forlorn_since_s = None
            self.pump(now_s)
            return
        self._send_elsewhere(now_s)
        if self._forlorn_since_s is None:
            self._forlorn_since_s = now_s
            self._clock.at(now_s + NO_WORKERS_GRACE_S, self._give_up, now_s)

    def _send_elsewhere(self, now_s: float) -> None:
        """The last worker of this model left: who waits for it goes to another one, if that can serve it."""
        for request in [request for queue in self._queues for request in queue]:
            if self.elsewhere(request, now_s, False):
                self._queues[request.gateway].remove(request)

    def lose(self, worker: SimulatedWorker, now_s: float) -> None:
        """The worker died: everything it held, images on their way out included, is tried elsewhere."""
        worker.loop.die()
        self._pool.changed(worker)
        for run in [run for run in self._runs.values() if run.worker is worker]:
            run.lost = True
            del self._runs[run.request.number]
            self._retry(run.request, worker.name, now_s)
        self.ready_changed(now_s)

    def give_up_overdue(self, worker: SimulatedWorker, now_s: float) -> None:
        """Requests that a slow or frozen worker holds beyond their clients' patience are cancelled, as live."""
        overdue = [run for run in self._runs.values() if run.worker is worker and run.request.gives_up_s <= now_s]
        for run in overdue:
            run.lost = True
            del self._runs[run.request.number]
            worker.loop.drop(run.request.number, now_s)
            self._ended(End(run.request.number, Fate.EXPIRED, now_s, retries=run.request.tries, request=run.request))
        if overdue:
            self.follow(worker, now_s)
            self.pump(now_s)

    def _start(self, now_s: float, request: SimulatedRequest) -> bool:
        """Send it to a worker, if the policy finds one with room. Where it would be late, it leaves instead."""
        left_s, view = request.deadline_s - now_s, self.view(now_s, request.gateway)
        own = view.for_cost(request.step_cost)
        placement = self._policy.place(request.sent_to or request.level, own, left_s, request.excluded)
        worker = None if placement is None else self._pool.by_name(placement.worker)
        if placement is None or worker is None or worker.is_overfull:
            request.choosy |= view.free_slots > 0
            return False
        if placement.is_late(left_s):
            self._leave_late(now_s, request)
            self._expire(now_s, request)
            return False
        free = view.free_slots
        if free and view.others is not None and not self._turns[request.gateway].may_take(view.others, free, now_s):
            return False
        self._run(request, worker, now_s)
        return True

    def _run(self, request: SimulatedRequest, worker: SimulatedWorker, now_s: float) -> None:
        level, number = request.level, request.number
        steps = ceil(level.cost) + request.extra_steps
        if level.needs_latent:
            got = self._neighbours.take(self.entries[number], level.skipped_steps, now_s)
            if got < level.skipped_steps:  # evicted while it waited: the worker starts lower
                level = replace(level, skipped_steps=got)
                steps = ceil(level.cost) + request.extra_steps
        run = self._runs[number] = _Run(request, worker, level, steps)
        cost = request.step_cost
        due_s = request.deadline_s - worker.fixed_s * cost
        worker.loop.join(SimulatedJob(number, run.steps, due_s=due_s, step_cost=cost), now_s)
        self.follow(worker, now_s)

    def follow(self, worker: SimulatedWorker, now_s: float) -> None:
        """After a change of the worker's batch or pace: a new view, and an event for its next end."""
        self._pool.changed(worker)
        for job in worker.loop.take_hopeless():
            run = self._runs.pop(job.request, None)
            if run is not None:  # else its client gave up at this moment
                self._ended(End(job.request, Fate.EXPIRED, now_s, retries=run.request.tries, request=run.request))
        if worker.loop.running:
            self._clock.at(worker.loop.due_s, self._steps_done, (worker, worker.loop.version))

    def _steps_done(self, now_s: float, due: tuple[SimulatedWorker, int]) -> None:
        worker, version = due
        if version != worker.loop.version:
            return  # the batch changed meanwhile; another event is set
        done = worker.loop.finish_due()
        self.follow(worker, now_s)
        for job in done:
            run = self._runs[job.request]
            if worker.fixed_s > 0:
                self._clock.at(now_s + worker.fixed_s * job.step_cost, self._image_out, run)
            else:
                self._image_out(now_s, run)
        if any(queue.count for queue in self._queues):
            self.pump(now_s)

    def _image_out(self, now_s: float, run: _Run) -> None:
        if not run.lost:
            number = run.request.number
            del self._runs[number]
            self._ended(End(number, Fate.SERVED, now_s, run.level, run.steps, run.request.tries, run.request))

    def _retry(self, request: SimulatedRequest, lost_on: str, now_s: float) -> None:
        request.tries += 1
        request.excluded |= {lost_on}
        request.choosy = True
        nobody = all(worker.name in request.excluded for worker in self.view(now_s).ready)
        if request.tries > MAX_RETRIES or (nobody and not self.elsewhere(request, now_s, False)):
            self._ended(End(request.number, Fate.LOST, now_s, retries=request.tries, request=request))
        elif nobody:
            pass  # it went elsewhere
        elif request.deadline_s <= now_s:
            self._ended(End(request.number, Fate.EXPIRED, now_s, retries=request.tries, request=request))
        else:
            self.submit(request, now_s)

    def _expire(self, now_s: float, request: SimulatedRequest) -> None:
        if request.waits:
            self._queues[request.gateway].remove(request)
            self._ended(End(request.number, Fate.EXPIRED, now_s, retries=request.tries, request=request))

    def _leave_late(self, now_s: float, request: SimulatedRequest) -> None:
        """It would be late here: another model's workers take it, if they are in time."""
        if request.waits and self.elsewhere(request, now_s, True):
            self._queues[request.gateway].remove(request)

    def _give_up(self, now_s: float, since_s: float) -> None:
        if self._forlorn_since_s == since_s:
            self._forlorn_since_s = None
            for request in [request for queue in self._queues for request in queue]:
                self._queues[request.gateway].remove(request)
                self._ended(End(request.number, Fate.LOST, now_s, retries=request.tries, request=request))
