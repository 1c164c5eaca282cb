"""The served level: what is actually run for one prompt under load and its deadline.

Decided from the request's options (each with its loss bound), the price of a step and the time left:

    served = argmin D(s, j) + price * cost(j)     among the levels that the request allows        (see `price`)

At rest a step costs nothing and the wanted level is served. Under load a step is saved where it costs least quality,
and only as far as the backlog asks.

A Fixed mix binds: the plan's shift map draws the level, as its owner said, and the price only goes down from there.

A level that would be late is passed over for the most faithful one in time, within the request's floor. The batch that
it joins grows no further than that deadline bears (`batch_limit`). It must never serve below the request's own floor,
nor above the steps it allows: those are not in `options`.
"""

from enum import StrEnum

from t2i_policy.level import Level
from t2i_policy.pool_view import PoolView
from t2i_policy.quick_dataclass import quick_dataclass
from t2i_policy.request.options import Option, WantedLevel


class ServedReason(StrEnum):
    """Why this level is served."""

    AS_WANTED = "AsWanted"
    PLANNED = "Planned"  # a Fixed mix drew it
    LOAD = "Load"  # the price of a step: cheaper than wanted, or than drawn
    DEADLINE = "Deadline"  # the wanted level could not finish in time
    LATENT_ELSEWHERE = "LatentElsewhere"  # workers that hold the latent would take longer than another without it
    MODEL_GONE = "ModelGone"  # no ready worker holds the model that it was meant for: not yet, or not any more


@quick_dataclass(frozen=True, slots=True)
class Served:
    """The served level, its loss bound, the seconds it is expected to take from now, and why."""

    level: Level
    expected_loss: float
    estimated_s: float
    reason: ServedReason


@quick_dataclass(frozen=True, slots=True)
class LoadState:
    """What bears on one request: seconds left to its deadline, the price of a step, what a Fixed mix drew for it."""

    left_s: float
    price: float
    drawn: Level | None = None


def pressure(pool: PoolView, slack_s: float) -> float:
    """Share of the slack that the pool's backlog already eats; > 1 when even waiting alone breaks the SLO."""
    return pool.backlog_s() / slack_s


def estimate_s(pool: PoolView, level: Level) -> float:
    """Expected seconds from now to the image: the gateway's queue, then the best worker."""
    return pool.queue_wait_s() + pool.best_finish_s(level.cost)


def choose_served_level(wanted: WantedLevel, options: tuple[Option, ...], pool: PoolView, load: LoadState) -> Served:
    """Always returns a level; whether it is admitted is `admission`'s decision.

    Without a ready worker nothing is bent: no level is in time, and none is served.
    """
    start = _start(wanted, options, load.drawn)
    chosen = _at_price(start, options, load.price) if pool.ready else start
    reason, estimated_s = ServedReason.LOAD, pool.expected_s(chosen.level.cost, load.left_s)
    if pool.ready and estimated_s > load.left_s:
        faster = _most_faithful_in_time(options, pool, load.left_s) or options[0]
        if faster.level != chosen.level:
            chosen, reason = faster, ServedReason.DEADLINE
            estimated_s = pool.expected_s(chosen.level.cost, load.left_s)
    if reason is ServedReason.LOAD:
        if chosen.level == wanted.level:
            reason = ServedReason.AS_WANTED
        elif chosen.level == start.level:
            reason = ServedReason.PLANNED
    return Served(chosen.level, chosen.expected_loss, estimated_s, reason)


def _start(wanted: WantedLevel, options: tuple[Option, ...], drawn: Level | None) -> Option:
    """What a Fixed mix drew, if this request may have it; else what is wanted."""
    found = None if drawn is None else next((option for option in options if option.level == drawn), None)
    return found or Option(wanted.level, wanted.expected_loss)


def _at_price(start: Option, options: tuple[Option, ...], price: float) -> Option:
    """What is best at the price of a step, no dearer than `start`."""
    if price == 0.0:
        return start
    most = start.level.cost
    if price == float("inf"):
        return options[0] if options[0].level.cost < most else start
    best, least = start, start.expected_loss + price * most
    for option in options:
        cost = option.expected_loss + price * option.level.cost
        if option.level.cost <= most and cost < least:
            best, least = option, cost
    return best


def _most_faithful_in_time(options: tuple[Option, ...], pool: PoolView, left_s: float) -> Option | None:
    in_time = [option for option in options if pool.expected_s(option.level.cost, left_s) <= left_s]
    return min(in_time, key=lambda option: (option.expected_loss, option.level.cost), default=None)
