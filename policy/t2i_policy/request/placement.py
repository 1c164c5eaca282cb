"""Placement: which worker runs a request (the paper's route-and-batch).

Decided from the workers' batches and their own measured step times. At low load requests are *spread*: each goes
where its image is expected first. At high load batches are *filled*: the fullest batch that still has a free slot and
meets the deadline takes the next request. So the other workers' slots stay whole for those behind (arXiv 2502.06798).
Filling raises throughput only where a larger batch is cheaper per image, and the measured step times say so. Between
workers that are equally good, the one that the plan assigned to this level is taken. So batches stay even.
An idle worker that failed what it was sent before is *tried* first: else nobody would learn at low load that it is
mended. The request that tries it has time left for another worker.
Every worker with a free slot may be too slow for a request. Then it waits for a faster one, if that should be in time.
Slow devices mostly have slots left that few can use. A request that could wait for a fast device must not be refused
because of these. Otherwise a request whose turn comes too late for its deadline is given up (`Placement.is_late`)
before it costs a step.
It must never pick a worker that is not ready, was excluded after a failure, or has no room.
"""

from collections.abc import Sequence
from enum import StrEnum
from math import inf

from t2i_policy.level import Level
from t2i_policy.pool_view import WorkerView, worth_waiting_for
from t2i_policy.quick_dataclass import quick_dataclass

FILL_FROM_OCCUPANCY = 0.6  # share of batch slots in use from which batches are filled
TRIAL_TIMES = 2.0  # of the time to the image that a request must have left to be the trial of a worker
ROUNDING_S = 1e-9
MIN_BATCH_GAIN = 1.05  # per-image gain of the full batch under which filling buys nothing


class PlacementReason(StrEnum):
    """Why this worker."""

    EARLIEST_FINISH = "EarliestFinish"
    FILL_BATCH = "FillBatch"
    TRIAL = "Trial"


@quick_dataclass(frozen=True, slots=True)
class Placement:
    """The worker's name, why it, and the seconds until the image is expected."""

    worker: str
    reason: PlacementReason
    estimated_s: float

    def is_late(self, left_s: float) -> bool:
        """Its image would come after the deadline: not worth a step, which would make those behind it late too."""
        return self.estimated_s > left_s + ROUNDING_S


def choose_worker(
    workers: Sequence[WorkerView], level: Level, left_s: float, occupancy: float, excluded: frozenset[str] = frozenset()
) -> Placement | None:
    """None = no worker has a free slot that is any use now: stay queued."""
    free = [worker for worker in workers if worker.free_slots]
    if excluded:
        free = [worker for worker in free if worker.name not in excluded]
    if not free:
        return None
    steps = level.cost
    for worker in [worker for worker in free if worker.unproven]:
        if not worker.in_flight and TRIAL_TIMES * worker.finish_s(steps) <= left_s:
            return Placement(worker.name, PlacementReason.TRIAL, worker.finish_s(steps))
    if occupancy >= FILL_FROM_OCCUPANCY:
        fullest = _fullest(free, level, left_s)
        if fullest is not None:
            return Placement(fullest.name, PlacementReason.FILL_BATCH, fullest.finish_s(steps))
    first = _soonest(free, level)
    placement = Placement(first.name, PlacementReason.EARLIEST_FINISH, first.finish_s(steps))
    return None if placement.is_late(left_s) and _waits(workers, steps, left_s, excluded) else placement


def _waits(workers: Sequence[WorkerView], steps: float, left_s: float, excluded: frozenset[str]) -> bool:
    """True if a faster worker should have a free slot in time."""
    able = [worker for worker in workers if worker.name not in excluded]
    return any(worker.finish_s(steps) <= left_s for worker in worth_waiting_for(able))


def _fullest(free: Sequence[WorkerView], level: Level, left_s: float) -> WorkerView | None:
    """The fullest batch that gains by filling and meets the deadline; then its level, the earlier image, the name.

    One pass that builds keys only for those in question: this runs over the whole pool for every request.
    """
    steps = float(level.cost)
    best: WorkerView | None = None
    least: tuple[int, bool, float, str] | None = None
    seen, elsewhere = None, True  # the last level compared: neighbours in the pool mostly share one
    for worker in free:
        if least is not None and worker.free_slots > least[0]:
            continue
        finish_s = steps * worker.join_step_s + worker.rest_s  # `finish_s` of a worker with a free slot
        if finish_s <= left_s and worker.batch_gain >= MIN_BATCH_GAIN:
            if worker.level is not seen:
                seen, elsewhere = worker.level, worker.level != level
            key = (worker.free_slots, elsewhere, finish_s, worker.name)
            if least is None or key < least:
                best, least = worker, key
    return best


def _soonest(free: Sequence[WorkerView], level: Level) -> WorkerView:
    """Where the image is expected first; then its level, the fewer requests, the name. `free` is not empty."""
    steps = float(level.cost)
    best, least = free[0], (inf, True, 0, "")
    seen, elsewhere = None, True  # as in `_fullest`
    for worker in free:
        finish_s = steps * worker.join_step_s + worker.rest_s
        if finish_s <= least[0]:
            if worker.level is not seen:
                seen, elsewhere = worker.level, worker.level != level
            key = (finish_s, elsewhere, worker.running + worker.waiting, worker.name)
            if key < least:
                best, least = worker, key
    return best
