"""Standing: placement for policies whose workers run one level each.

A request sent to a level waits for a worker that stands at it (`WorkerView.level`, from the plan's counts by
`assignment.assign_levels`), even if others idle; that is what these systems do. If nobody stands there (before the
first plan, or when the last such worker left) any worker takes it, so that a change of plan strands no request.
"""

from collections.abc import Sequence

from t2i_policy.level import Level
from t2i_policy.pool_view import PoolView, WorkerView
from t2i_policy.request.placement import Placement, choose_worker

SPREAD = 0.0  # an occupancy under which `choose_worker` never fills batches


def standing_at(workers: Sequence[WorkerView], level: Level) -> tuple[WorkerView, ...]:
    """The workers at `level`; all of them if none is."""
    return tuple(worker for worker in workers if worker.level == level) or tuple(workers)


def place_standing(
    level: Level, pool: PoolView, left_s: float, excluded: frozenset[str], occupancy: float = SPREAD
) -> Placement | None:
    """A worker at `level`: the one that finishes first, or from `placement.FILL_FROM_OCCUPANCY` on the fullest."""
    able = [worker for worker in pool.ready if worker.name not in excluded]
    return choose_worker(standing_at(able, level), level, left_s, occupancy)


def place_anywhere(level: Level, pool: PoolView, left_s: float, excluded: frozenset[str]) -> Placement | None:
    """Whichever worker finishes first, wherever it stands."""
    return choose_worker(pool.ready, level, left_s, SPREAD, excluded)
