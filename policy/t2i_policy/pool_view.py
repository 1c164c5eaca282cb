"""What a decision sees of the pool: frozen snapshots of workers and of load. Shells build them; nothing mutates.

A snapshot is built once a change and read by many decisions. So what they all ask for is worked out as it is built.

Several gateways may share the workers. Each divides by the rate of the whole pool, so it must count what all of them
have waiting. They tell each other (`OtherQueues`, see `request.other_gateways`). Until one has heard, it takes each of
the others to hold as much as itself. Chance decides which gateway with a queue gets a slot that falls free. With one
tenant their chances are alike. With several they go by what the tenants bring to each gateway (`slot_turns`). New
requests meanwhile come to all of them. So for each step that is ahead here, one runs for each other gateway that has a
queue:

    wait = steps ahead * (1 + other gateways with a queue) * TURN_MARGIN / steps a second      without others: no margin

Whose turn it is, is chance: hence the margin. A queue kept a little shorter costs no throughput, an image that is late
costs all its steps.

What workers owe to the others is in the workers' views already (`request.other_gateways`). Only the bound on the queue,
`gateway.maxQueuedRequests`, is about one gateway: it is held against `queued` as it is.

Images of other sizes: all steps are counted in steps of the default size (see `image_size`). Places of a batch are
counted in requests of that size. A request of cost c sees a longer step, which grows by what c - 1 places take:

    its step = step at the batch that one more makes + (c - 1) * full batch's step / batch cap

So it pays for its own size once, and for the batch around it as everybody does. It may join wherever one place is free,
if the deadlines of those in the batch bear it. So it may make a batch longer than the cap by c - 1 places. If places
were kept for smaller ones alone, they would stand empty, or it would wait for ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from functools import lru_cache
from math import inf
from typing import Any

from t2i_policy.batch_limit import NO_LIMIT
from t2i_policy.level import Level
from t2i_policy.profile import step_time
from t2i_policy.quick_dataclass import quick_dataclass

FASTER = 1.25  # times: by so much equal workers do not differ
TURN_MARGIN = 1.25  # at 1.25x of capacity 2 and 4 gateways then have as many images in time as one, within 2 points

#: For each time of a step (seconds) that a joining request may meet, the least a ready worker of that pace takes beside
#: the steps (seconds). Whatever finishes first, at any number of steps, is among them. A free slot is taken at once:
#: while there is one, only workers with one are meant.
Paces = tuple[tuple[float, float], ...]

TenantSteps = Mapping[int, int]  # steps that wait in one gateway, by `queue.tenant_key`


@quick_dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker as last reported, plus what the gateway has sent it since.

    `running` requests are in its step loop, and `waiting` ones are accepted but not in it yet. Both are counted in
    places of the batch. `batch_cap` and `step_s` (seconds of one step by batch size) are the worker's own measurements.
    `steps_left` sums the denoising steps owed to running and waiting requests. `level` is what the plan assigned it: an
    affinity, never a limit. `unproven`: it failed requests in a row, and has drawn no image since. `batch_limit`: the
    largest batch with which the requests that it holds are in time (see `batch_limit`); it takes no more, but may hold
    more. `extra_step_s`: what a step takes longer for the request that looks (see `for_cost`). `boundary_s`: what a
    request that joins may wait for the end of the step that goes on, at most. `model`: the one that it holds, of a pool
    with several; empty: the pool's own.
    """

    name: str
    ready: bool
    running: int
    waiting: int
    batch_cap: int
    step_s: tuple[float, ...]
    fixed_s: float
    steps_left: int
    group: str = ""
    level: Level | None = None
    unproven: bool = False
    batch_limit: int = NO_LIMIT
    extra_step_s: float = 0.0
    boundary_s: float = 0.0
    model: str = ""
    free_slots: int = field(init=False, compare=False)  # requests that would join its batch at the next step boundary
    join_step_s: float = field(init=False, compare=False)  # one step at the batch size that one more request makes
    slot_wait_s: float = field(init=False, compare=False)  # until a slot frees for one more request; 0 with a free one
    rest_s: float = field(init=False, compare=False)  # what an image takes besides its steps; inf if not ready
    steps_per_s: float = field(init=False, compare=False)  # denoising steps a second at its full batch
    batch_gain: float = field(init=False, compare=False)  # images/s at its full batch over those at batch 1

    def __post_init__(self) -> None:
        in_flight, cap = self.running + self.waiting, self.batch_cap
        steps_per_s, batch_gain = _full_batch(self.step_s, cap)
        if self.batch_limit < cap:
            cap = min(cap, max(in_flight, self.batch_limit))
        free = cap - in_flight if self.ready and in_flight < cap else 0
        wait_s = 0.0
        if not free:
            # A slot frees when the shortest of the batch ends: on average after the owed steps of one slot, times
            # those waiting before us.
            ahead = self.steps_left / max(1, in_flight) * (1 + self.waiting) / max(1, cap)
            wait_s = ahead * step_time(self.step_s, cap)
        born: Any = self  # mypy takes it to be frozen
        born.free_slots = free
        born.join_step_s = step_time(self.step_s, in_flight + 1 if in_flight < cap else cap) + self.extra_step_s
        born.slot_wait_s = wait_s
        born.rest_s = self.fixed_s + self.boundary_s + wait_s if self.ready else inf
        born.steps_per_s = steps_per_s
        born.batch_gain = batch_gain

    @property
    def in_flight(self) -> int:
        """Requests this worker holds."""
        return self.running + self.waiting

    def finish_s(self, steps: float) -> float:
        """Expected seconds until a request of `steps` steps, sent now, has its image.

        In a free slot it runs at the batch size it joins; else it first waits for its share of the owed steps.
        """
        return steps * self.join_step_s + self.fixed_s + self.boundary_s + self.slot_wait_s

    def for_cost(self, step_cost: float) -> "WorkerView":
        """As a request sees it whose steps cost so much. What follows the steps grows alike, as it goes by pixels."""
        full_s = step_time(self.step_s, self.batch_cap) / max(1, self.batch_cap)
        bears = not self.in_flight or self.in_flight + step_cost <= self.batch_limit
        return replace(
            self,
            fixed_s=step_cost * self.fixed_s,
            batch_limit=self.batch_limit if bears else self.in_flight,
            extra_step_s=(step_cost - 1) * min(full_s, step_time(self.step_s, 1)),
        )


@quick_dataclass(frozen=True, slots=True)
class OtherQueues:
    """What the other gateways have: waiting requests, their steps, how many gateways have any, requests/s that come.

    `by_tenant`: those steps, for each gateway that has any. With several tenants `gateways` are as many as have the
    claim of this one (see `slot_turns`). That need not be a whole number.
    """

    requests: int
    steps: int
    gateways: float
    rate_rps: float = 0.0
    by_tenant: tuple[TenantSteps, ...] = ()


@quick_dataclass(frozen=True, slots=True)
class PoolView:
    """The pool at one instant: its workers, and the requests and steps that wait in this gateway.

    `ahead_steps` are those of them that would be served before the request that asks (`FairQueue.steps_ahead`); None =
    all of them. `gateways` share the workers, this one included. `others` None = nothing was heard of their queues.
    `parts`: where workers hold several models, what each model has, by name: its workers and what waits for them.
    Empty: all hold the pool's own.
    """

    workers: tuple[WorkerView, ...]
    queued: int
    queued_steps: int
    ahead_steps: int | None = None
    gateways: int = 1
    others: OtherQueues | None = None
    parts: Mapping[str, "PoolView"] = field(default_factory=dict)
    ready: tuple[WorkerView, ...] = field(init=False, compare=False)  # workers that accept requests
    steps_per_s: float = field(init=False, compare=False)  # of all ready workers at full batches
    slots: int = field(init=False, compare=False)  # batch places of ready workers
    free_slots: int = field(init=False, compare=False)  # of them, those that requests would get at once
    in_flight: int = field(init=False, compare=False)  # requests at ready workers
    owed_steps: int = field(init=False, compare=False)  # steps that ready workers owe
    paces: Paces = field(init=False, compare=False)
    alone: Paces = field(init=False, compare=False)  # as `paces`, of ready workers with nothing to do

    def __post_init__(self) -> None:
        ready = tuple(worker for worker in self.workers if worker.ready)
        rests: dict[float, float] = {}
        for worker in able_now(ready):
            rests[worker.join_step_s] = min(worker.rest_s, rests.get(worker.join_step_s, inf))
        born: Any = self  # mypy takes it to be frozen
        born.ready = ready
        born.steps_per_s = sum([worker.steps_per_s for worker in ready])
        born.slots = sum([worker.batch_cap for worker in ready])
        born.free_slots = sum([worker.free_slots for worker in ready])
        born.in_flight = sum([worker.running + worker.waiting for worker in ready])
        born.owed_steps = sum([worker.steps_left for worker in ready])
        born.paces = tuple(rests.items())
        born.alone = tuple(
            {(worker.step_s[0] + worker.extra_step_s, worker.fixed_s) for worker in ready if worker.step_s}
        )

    def for_cost(self, step_cost: float) -> "PoolView":
        """As a request sees the pool each of whose steps costs so many of the default size."""
        if step_cost == 1.0:
            return self
        return replace(
            self,
            workers=tuple(worker.for_cost(step_cost) for worker in self.workers),
            parts={model: part.for_cost(step_cost) for model, part in self.parts.items()},
        )

    def of_model(self, model: str) -> "PoolView":
        """What a request meets that this model serves: its workers alone, and what waits for them."""
        return self.parts.get(model, NOBODY) if self.parts else self

    @property
    def queued_in_all(self) -> int:
        """Requests that wait in all gateways."""
        return self.gateways * self.queued if self.others is None else self.queued + self.others.requests

    @property
    def occupancy(self) -> float:
        """Share of batch slots in use over ready workers; above 1 when requests wait. 1.0 without ready workers."""
        if self.slots == 0:
            return 1.0
        return (self.in_flight + self.queued_in_all) / self.slots

    def backlog_s(self) -> float:
        """Seconds the pool needs to work off every owed step, running, waiting and queued in any gateway."""
        if self.steps_per_s <= 0:
            return float("inf")
        in_others = (self.gateways - 1) * self.queued_steps if self.others is None else self.others.steps
        return (self.owed_steps + self.queued_steps + in_others) / self.steps_per_s

    def best_finish_s(self, steps: float) -> float:
        """Expected seconds to an image of `steps` steps on the ready worker that would finish it first; inf without
        one. As `best_finish_s(self.ready, steps)`, over the few paces there are instead of all workers.
        """
        run = float(steps)
        return min([run * step_s + rest_s for step_s, rest_s in self.paces], default=inf)

    def expected_s(self, steps: float, left_s: float) -> float:
        """Expected seconds from now to an image of `steps` steps, `left_s` before its deadline: behind those that wait
        here, on the worker with a free slot that is first. Where that is too late, on a faster one without a free slot
        yet, if that is in time (see `placement`).
        """
        soon_s = self.queue_wait_s() + self.best_finish_s(steps)
        if soon_s <= left_s:
            return soon_s
        later_s = self._later_s(steps)
        return later_s if later_s <= left_s else soon_s

    def _later_s(self, steps: float) -> float:
        """Behind all who wait, on one that is worth waiting for; inf without one."""
        faster = worth_waiting_for(self.ready)
        steps_per_s = sum(worker.steps_per_s for worker in faster)
        return self.turns * self.queued_steps / steps_per_s + best_finish_s(faster, steps) if faster else inf

    def alone_s(self, steps: float) -> float:
        """Seconds to an image of `steps` steps on the fastest ready worker, if it had nothing else; inf without one."""
        return min([steps * step_s + fixed_s for step_s, fixed_s in self.alone], default=inf)

    @property
    def turns(self) -> float:
        """Steps that all gateways hand out for one of this one's, at worst."""
        sharing = self.gateways if self.others is None else 1 + self.others.gateways
        return sharing * TURN_MARGIN if sharing > 1 else 1.0

    def queue_wait_s(self) -> float:
        """Expected seconds in the gateway's queue for a request that asks now; 0 with a free slot."""
        if self.queued == 0 and self.in_flight < self.slots:
            return 0.0
        ahead = self.queued_steps if self.ahead_steps is None else self.ahead_steps
        return self.turns * ahead / self.steps_per_s if self.steps_per_s > 0 else float("inf")


def join_parts(parts: Mapping[str, PoolView]) -> PoolView:
    """The whole pool, from what each of its models has."""
    views = tuple(parts.values())
    return PoolView(
        tuple(worker for view in views for worker in view.workers),
        sum(view.queued for view in views),
        sum(view.queued_steps for view in views),
        gateways=max((view.gateways for view in views), default=1),
        parts=parts,
    )


def able_now(workers: Sequence[WorkerView]) -> Sequence[WorkerView]:
    """Those with a free slot, which one more request would get at once; without any, all."""
    return [worker for worker in workers if worker.free_slots] or workers


def worth_waiting_for(workers: Sequence[WorkerView]) -> Sequence[WorkerView]:
    """Those without a free slot that are FASTER than all that have one."""
    quickest_s = min([step_time(worker.step_s, 1) for worker in workers if worker.free_slots], default=0.0)
    full = [worker for worker in workers if worker.ready and not worker.free_slots and worker.steps_per_s > 0]
    return [worker for worker in full if 0 < FASTER * step_time(worker.step_s, 1) <= quickest_s]


def best_finish_s(workers: Sequence[WorkerView], steps: float) -> float:
    """Expected seconds to an image of `steps` steps on the worker that would finish it first; inf without one.

    `WorkerView.finish_s` written out: every decision runs this over the whole pool.
    """
    run = float(steps)  # a float times a float is the fast case
    return min([run * worker.join_step_s + worker.rest_s for worker in able_now(workers)], default=inf)


@lru_cache(maxsize=256)
def _full_batch(step_s: tuple[float, ...], batch_cap: int) -> tuple[float, float]:
    """Steps a second at the full batch, and images/s there over those at batch 1; equal for all views of a worker."""
    full_s = max(step_time(step_s, batch_cap), 1e-9)
    return batch_cap / full_s, step_time(step_s, 1) * batch_cap / full_s


NOBODY = PoolView((), 0, 0)
