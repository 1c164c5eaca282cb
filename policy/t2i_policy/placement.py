"""Placement: which worker runs a request (the paper's route-and-batch).

Decided from the workers' batches and their own measured step times. At low load requests are *spread*: each goes
where its image is expected first. At high load batches are *filled*: the fullest batch that still has a free slot and
meets the deadline takes the next request, so the other workers' slots stay whole for those behind (arXiv 2502.06798;
filling raises throughput only where a larger batch is cheaper per image, and the measured step times say so). Between
workers that are equally good, the one that the plan assigned to this level is taken, so that batches stay even.
It must never pick a worker that is not ready, was excluded after a failure, or has no room.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from t2i_policy.levels import Level
from t2i_policy.profile import step_time
from t2i_policy.views import WorkerView

FILL_FROM_OCCUPANCY = 0.6  # share of batch slots in use from which batches are filled
MIN_BATCH_GAIN = 1.05  # per-image gain of the full batch under which filling buys nothing


class PlacementReason(StrEnum):
    """Why this worker."""

    EARLIEST_FINISH = "EarliestFinish"
    FILL_BATCH = "FillBatch"


@dataclass(frozen=True, slots=True)
class Placement:
    """The worker's name, why it, and the seconds until the image is expected."""

    worker: str
    reason: PlacementReason
    estimated_s: float


def choose_worker(
    workers: Sequence[WorkerView], level: Level, left_s: float, occupancy: float, excluded: frozenset[str] = frozenset()
) -> Placement | None:
    """See the module; None = no worker has a free slot now: stay queued."""
    free = [worker for worker in workers if worker.free_slots and worker.name not in excluded]
    if not free:
        return None
    steps = level.steps_run
    if occupancy >= FILL_FROM_OCCUPANCY:
        in_time = [w for w in free if steps * w.join_step_s + w.fixed_s <= left_s and _gains_by_batching(w)]
        if in_time:
            fullest = min(in_time, key=lambda w: (w.free_slots, w.level != level, w.finish_s(steps), w.name))
            return Placement(fullest.name, PlacementReason.FILL_BATCH, fullest.finish_s(steps))
    soonest_s = min(steps * w.join_step_s + w.fixed_s for w in free)
    equal = [w for w in free if steps * w.join_step_s + w.fixed_s <= soonest_s]
    first = min(equal, key=lambda w: (w.level != level, w.in_flight, w.name))
    return Placement(first.name, PlacementReason.EARLIEST_FINISH, first.finish_s(steps))


def _gains_by_batching(worker: WorkerView) -> bool:
    alone = step_time(worker.step_s, 1)
    together = step_time(worker.step_s, worker.batch_cap) / worker.batch_cap
    return alone >= MIN_BATCH_GAIN * together
