"""The served level: the wanted level while there is room, a cheaper one as load or the deadline presses.

Decided from the request's options (each with its loss bound), the pool's pressure and the time left. The pool spends
quality only as pressure asks for it: the loss a request may suffer grows from *harmless* to the floor as the backlog
eats the SLO's slack, and the cheapest level within that allowance is served.

    pressure p = backlog_s / slack_s, slack_s = SLO - time of an exact image
    allowed(p) = tolerance + (max_loss - tolerance) * clamp((p - LOW) / (HIGH - LOW), 0, 1)
    served     = argmin steps_run(j)  subject to  D(s, j) <= allowed(p)

A level that cannot meet the deadline is passed over for the most faithful one that can, within the request's floor.
It must never serve below the request's own floor, nor above the steps it allows: those are not in `options`.
Until the planner's shift map takes over (arXiv 2502.06798's K -> K'), this rule is the whole of it.
"""

from dataclasses import dataclass
from enum import StrEnum

from t2i_policy.levels import Level
from t2i_policy.views import PoolView, best_finish_s
from t2i_policy.wanted import HARMLESS_LOSS, Limits, Option, Wanted, cheapest_within

LOW_PRESSURE = 0.3  # below: quality is not spent
HIGH_PRESSURE = 0.9  # above: all of it up to the floor may be


class ServedReason(StrEnum):
    """Why this level is served."""

    AS_WANTED = "AsWanted"
    LOAD = "Load"  # the backlog presses: cheaper than wanted
    DEADLINE = "Deadline"  # the wanted level could not finish in time


@dataclass(frozen=True, slots=True)
class Served:
    """The served level, its loss bound, the seconds it is expected to take from now, and why."""

    level: Level
    expected_loss: float
    estimated_s: float
    reason: ServedReason


def pressure(pool: PoolView, slo_s: float, exact_s: float) -> float:
    """Share of the SLO's slack that the pool's backlog already eats; > 1 when even waiting alone breaks it."""
    slack_s = max(slo_s - exact_s, 0.05 * slo_s)
    return pool.backlog_s() / slack_s


def allowed_loss(pressed: float, max_loss: float, tolerance: float = HARMLESS_LOSS) -> float:
    """Loss a request may suffer at this pressure: monotone, `tolerance` at rest, `max_loss` at the top."""
    if max_loss <= tolerance:
        return max_loss
    share = min(1.0, max(0.0, (pressed - LOW_PRESSURE) / (HIGH_PRESSURE - LOW_PRESSURE)))
    return tolerance + (max_loss - tolerance) * share


def estimate_s(pool: PoolView, level: Level) -> float:
    """Expected seconds from now to the image: the gateway's queue, then the best worker."""
    return pool.queue_wait_s() + best_finish_s(pool.ready, level.steps_run)


def choose_served_level(
    wanted: Wanted, options: tuple[Option, ...], pool: PoolView, limits: Limits, times: "Times"
) -> Served:
    """See the module. Always returns a level; whether it is admitted is `admission`'s decision."""
    allowed = allowed_loss(times.pressed, limits.max_loss)
    chosen = cheapest_within(options, allowed) or Option(wanted.level, wanted.expected_loss)
    reason = ServedReason.AS_WANTED
    if chosen.level.steps_run < wanted.level.steps_run:
        reason = ServedReason.LOAD
    else:
        chosen = Option(wanted.level, wanted.expected_loss)
    if estimate_s(pool, chosen.level) > times.left_s:
        in_time = [o for o in options if estimate_s(pool, o.level) <= times.left_s]
        faithful = min(in_time, key=lambda o: (o.expected_loss, o.level.steps_run), default=None)
        cheapest = faithful or options[0]
        if cheapest.level != chosen.level:
            chosen, reason = cheapest, ServedReason.DEADLINE
    return Served(chosen.level, chosen.expected_loss, estimate_s(pool, chosen.level), reason)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds left until the request's deadline, and the pool's pressure (see `pressure`)."""

    left_s: float
    pressed: float
