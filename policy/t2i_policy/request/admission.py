"""Admission: accept a request, or refuse it at once with the reason and when to come back.

Decided from the time left, the level it would be served at and the pool. A request that cannot finish in time is
refused before it costs a step; a full queue is refused rather than grown. It must never queue what it cannot serve.
"""

from enum import StrEnum
from math import inf

from t2i_policy.pool_view import PoolView
from t2i_policy.quick_dataclass import quick_dataclass
from t2i_policy.request.served import Served

MIN_RETRY_S = 0.1
MAX_RETRY_S = 30.0
NO_WORKERS_RETRY_S = 10.0  # a worker takes some ten seconds at least to start


class RefusedReason(StrEnum):
    """Why a request was refused; each maps to one gRPC code in the gateway."""

    DEADLINE_PASSED = "DeadlinePassed"  # nothing left of it on arrival
    DEADLINE_UNREACHABLE = "DeadlineUnreachable"  # no allowed level finishes in time, even on an idle pool
    OVERLOADED = "Overloaded"  # it would finish in time on an idle pool, not behind this backlog
    QUEUE_FULL = "QueueFull"
    IMAGES_FULL = "ImagesFull"  # the gateway holds as many bytes of requests as it may
    NO_WORKERS = "NoWorkers"
    RATE_LIMITED = "RateLimited"  # the tenant used up what it may have in a minute


@quick_dataclass(frozen=True, slots=True)
class Admitted:
    """Goes into the queue; `estimated_s` from now to the image."""

    estimated_s: float


@quick_dataclass(frozen=True, slots=True)
class Refused:
    """Never queued. `retry_after_s` is when the backlog should have made room; None where retrying is no use."""

    reason: RefusedReason
    message: str
    retry_after_s: float | None


def decide_admission(pool: PoolView, served: Served, left_s: float, max_queued: int) -> Admitted | Refused:
    """By the workers that hold the model of the served level, and what waits for them."""
    several, pool = bool(pool.parts), pool.of_model(served.level.model)
    if left_s <= 0:
        return Refused(RefusedReason.DEADLINE_PASSED, "the deadline had passed when the request arrived", None)
    if not pool.ready:
        text = say_no_workers((served.level.model or "of the pool") if several else "")
        return Refused(RefusedReason.NO_WORKERS, text, NO_WORKERS_RETRY_S)
    if pool.queued >= max_queued and _waits(pool, served, left_s):
        return Refused(
            RefusedReason.QUEUE_FULL, f"{pool.queued} requests wait already", _retry_after(pool.queue_wait_s())
        )
    if served.estimated_s <= left_s:
        return Admitted(served.estimated_s)
    idle_s = pool.alone_s(served.level.cost)
    if left_s < idle_s < inf:
        message = f"the fastest allowed level takes about {idle_s:.1f} s, {left_s:.1f} s are left"
        return Refused(RefusedReason.DEADLINE_UNREACHABLE, message, None)
    message = f"expected to take {served.estimated_s:.1f} s behind the backlog, {left_s:.1f} s are left"
    return Refused(RefusedReason.OVERLOADED, message, _retry_after(served.estimated_s - left_s))


def say_no_workers(model: str = "") -> str:
    """Why a request is not served that needs a worker. `model`: what to call the one it needs; "" says none."""
    holding = f" that holds the model {model}" if model else ""
    reason = ", with the reason ModelNotServed," if model else ""
    where = f"in a cluster the pool's condition Ready{reason} says why; t2ictl local up starts a lost worker again"
    return f"no worker{holding} is ready: {where}"


def _waits(pool: PoolView, served: Served, left_s: float) -> bool:
    """True if no free slot is any use to it."""
    return pool.best_finish_s(served.level.cost) > left_s or not pool.free_slots


def refuse_late(estimated_s: float, left_s: float) -> Refused:
    """What one is told that waited for its turn longer than was expected when it was admitted."""
    message = f"its turn did not come in time: {max(0.0, left_s):.1f} s are left, it takes about {estimated_s:.1f} s"
    return Refused(RefusedReason.OVERLOADED, message, _retry_after(estimated_s - left_s))


def refuse_moved(served: Served, left_s: float) -> Refused | None:
    """What an accepted request is told at once that must leave its model, if no other is in time; None: one is.

    Its deadline may be near by now, so it is always told when to come back with a new one.
    """
    if served.estimated_s <= left_s:
        return None
    took = f"another model is expected to take {served.estimated_s:.1f} s, {max(0.0, left_s):.1f} s are left"
    message = f"the workers of the model that it was meant for are gone: {took}"
    return Refused(RefusedReason.OVERLOADED, message, _retry_after(served.estimated_s - left_s))


def _retry_after(seconds: float) -> float:
    return min(MAX_RETRY_S, max(MIN_RETRY_S, seconds))
