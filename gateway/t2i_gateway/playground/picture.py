"""What the page shows of the pool, as JSON. Of other callers it tells numbers only."""

from collections.abc import Sequence
from typing import Any

from t2i_api.pool import Pool
from t2i_gateway.playground.recent import RecentSummary
from t2i_gateway.playground.synthetic_load import SyntheticLoad
from t2i_gateway.workers.connection import WorkerConnection
from t2i_policy.level import Level
from t2i_policy.outliers import HealthState
from t2i_policy.pool_view import PoolView

_STATES = {HealthState.GOOD: "ready", HealthState.ON_TRIAL: "on trial", HealthState.EJECTED: "left out"}


def pool_picture(pool: Pool, levels: Sequence[Level], view: PoolView, recent: RecentSummary) -> dict[str, Any]:
    """The pool's targets, its queue, and what the last minute brought. `levels`: exact first, by falling cost,
    model by model."""
    spec = pool.spec
    return {
        "pool": pool.metadata.name,
        "slo_s": spec.slo.latency_s,
        "min_quality_percent": spec.slo.min_quality_percent,
        "full_rps": _full_rps(levels, view),
        "queued": view.queued,
        "levels": [_level(level, served) for level, served in zip(levels, recent.served, strict=True)],
        "refused": recent.refused,
        "window_s": recent.window_s,
        "p95_s": recent.p95_s,
        "mean_quality_percent": recent.mean_quality_percent,
        "from_cache_fraction": recent.from_cache_fraction,
        "seconds": recent.seconds,
    }


def _full_rps(levels: Sequence[Level], view: PoolView) -> float:
    """Images a second that the workers draw on the full schedules of what they hold."""
    full: dict[str, Level] = {}
    for level in levels:
        full.setdefault(level.model, level)
    return sum(view.of_model(model).steps_per_s / level.cost for model, level in full.items())


def _level(level: Level, served: int) -> dict[str, Any]:
    return {
        "phrase": level.phrase,
        "skipped_steps": level.skipped_steps,
        "num_inference_steps": level.num_inference_steps,
        "model": level.model,
        "cost": level.cost,
        "served": served,
    }


def worker_pictures(connections: Sequence[WorkerConnection]) -> list[dict[str, Any]]:
    """Each worker: whether it takes requests, and how many places of its batch are taken."""
    return [
        {
            "name": one.name,
            "state": _state(one),
            "running": one.view.running,
            "waiting": one.view.waiting,
            "places": one.load.batch_cap,
            "model": one.model,
        }
        for one in connections
    ]


def _state(worker: WorkerConnection) -> str:
    if worker.description is None:
        return "not reached"
    if worker.is_reloading:
        return "loading another model"
    if not worker.ready:
        return "draining" if worker.load.draining else "not ready"
    return _STATES[worker.state]


def load_picture(load: SyntheticLoad) -> dict[str, Any]:
    sent = load.sent
    return {
        "rps": load.rps,
        "in_flight": load.in_flight,
        "drawn": sent.drawn,
        "refused": sent.refused + sent.failed,
        "held_back": sent.held_back,
    }
