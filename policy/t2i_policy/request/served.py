"""The served level: what is actually run for one prompt under load and its deadline.

Decided from the request's options (each with its loss bound), the level the plan drew for its prompt class, the pool's
pressure and the time left. Two forces, slow and fast:

- *feedforward*: the plan's shift map (arXiv 2502.06798's K -> K') says how prompts of each class share the levels at
  the demand it was made for;
- *feedback*: as the backlog eats the SLO's slack, a step gets a price, and the level is served that is best at it.

    pressure p = backlog_s / slack_s, slack_s = SLO - time of an exact image
    x          = clamp((p - LOW) / (HIGH - LOW), 0, 1)
    price(p)   = max_loss / N * x / (1 - x)          loss per step; N = steps of the full schedule
    served     = argmin D(s, j) + price(p) * steps_run(j)  among levels no dearer than the drawn one

Minimising loss + price * steps is what the capacity constraint's Lagrangian asks for, so a step is saved where it
costs least quality, and only as far as the backlog demands; at p = HIGH the cheapest level within the floor is served.
Below IDLE the plan is for a demand that is not here, and the wanted level is served; a *binding* plan, whose mix its
owner fixed, holds at rest too.

A level that cannot meet the deadline is passed over for the most faithful one that can, within the request's floor.
It must never serve below the request's own floor, nor above the steps it allows: those are not in `options`.
"""

from dataclasses import dataclass
from enum import StrEnum

from t2i_policy.level import Level
from t2i_policy.pool_view import PoolView
from t2i_policy.request.options import Limits, Option, WantedLevel

IDLE_PRESSURE = 0.1  # below: what is wanted is served, whatever a plan says that is not binding
LOW_PRESSURE = 0.3  # below: a step has no price
HIGH_PRESSURE = 0.9  # above: quality may be spent to the floor


class ServedReason(StrEnum):
    """Why this level is served."""

    AS_WANTED = "AsWanted"
    PLANNED = "Planned"  # the shift map moved it
    LOAD = "Load"  # the backlog presses: cheaper than planned
    DEADLINE = "Deadline"  # the wanted level could not finish in time
    LATENT_ELSEWHERE = "LatentElsewhere"  # workers that hold the latent would take longer than another without it


@dataclass(frozen=True, slots=True)
class Served:
    """The served level, its loss bound, the seconds it is expected to take from now, and why."""

    level: Level
    expected_loss: float
    estimated_s: float
    reason: ServedReason


@dataclass(frozen=True, slots=True)
class Situation:
    """What bears on one request: seconds left to its deadline, the pool's pressure, the plan's draw, if any, and
    whether it binds at rest too."""

    left_s: float
    pressed: float
    planned: Level | None = None
    binding: bool = False


def pressure(pool: PoolView, slo_s: float, exact_s: float) -> float:
    """Share of the SLO's slack that the pool's backlog already eats; > 1 when even waiting alone breaks it."""
    slack_s = max(slo_s - exact_s, 0.05 * slo_s)
    return pool.backlog_s() / slack_s


def step_price(pressed: float, max_loss: float, base_steps: int) -> float:
    """What a denoising step costs in quality at this pressure: 0 at rest, infinite at the top, monotone between."""
    share = (pressed - LOW_PRESSURE) / (HIGH_PRESSURE - LOW_PRESSURE)
    if share <= 0:
        return 0.0
    return float("inf") if share >= 1 else max_loss / base_steps * share / (1 - share)


def estimate_s(pool: PoolView, level: Level) -> float:
    """Expected seconds from now to the image: the gateway's queue, then the best worker."""
    return pool.queue_wait_s() + pool.best_finish_s(level.steps_run)


def choose_served_level(
    wanted: WantedLevel, options: tuple[Option, ...], pool: PoolView, limits: Limits, situation: Situation
) -> Served:
    """Always returns a level; whether it is admitted is `admission`'s decision."""
    start = _planned_option(wanted, options, situation)
    chosen = _at_price(start, options, limits, situation.pressed)
    queue_s = pool.queue_wait_s()
    estimated_s = queue_s + pool.best_finish_s(chosen.level.steps_run)
    if estimated_s > situation.left_s:
        faster = _most_faithful_in_time(options, pool, situation.left_s - queue_s) or options[0]
        if faster.level != chosen.level:
            estimated_s = queue_s + pool.best_finish_s(faster.level.steps_run)
            return Served(faster.level, faster.expected_loss, estimated_s, ServedReason.DEADLINE)
    reason = ServedReason.LOAD
    if chosen.level == wanted.level:
        reason = ServedReason.AS_WANTED
    elif chosen.level == start.level:
        reason = ServedReason.PLANNED
    return Served(chosen.level, chosen.expected_loss, estimated_s, reason)


def _planned_option(wanted: WantedLevel, options: tuple[Option, ...], situation: Situation) -> Option:
    """The plan's draw, or the nearest thing this request may have; the wanted level without a plan, when idle under one
    that does not bind, and where one that binds drew what this request may not have."""
    planned = situation.planned
    idle = situation.pressed < IDLE_PRESSURE and not situation.binding
    if planned is None or planned == wanted.level or idle:
        return Option(wanted.level, wanted.expected_loss)
    exact = next((option for option in options if option.level == planned), None)
    if exact is not None:
        return exact
    if situation.binding:
        return Option(wanted.level, wanted.expected_loss)
    cheaper = [option for option in options if option.level.steps_run <= planned.steps_run]
    if cheaper:  # a hole in the cache or a tighter floor: what loses least among those that cost no more
        return min(cheaper, key=lambda option: (option.expected_loss, option.level.steps_run))
    return options[0]


def _at_price(start: Option, options: tuple[Option, ...], limits: Limits, pressed: float) -> Option:
    """What is best at the price of a step, no dearer than `start`."""
    most = start.level.steps_run
    base_steps = max(option.level.num_inference_steps for option in options)
    price = step_price(pressed, limits.max_loss, base_steps)
    if price == 0.0:
        return start
    if price == float("inf"):
        return options[0] if options[0].level.steps_run < most else start
    best, least = start, start.expected_loss + price * most
    for option in options:
        cost = option.expected_loss + price * option.level.steps_run
        if option.level.steps_run <= most and cost < least:
            best, least = option, cost
    return best


def _most_faithful_in_time(options: tuple[Option, ...], pool: PoolView, left_s: float) -> Option | None:
    in_time = [option for option in options if pool.best_finish_s(option.level.steps_run) <= left_s]
    return min(in_time, key=lambda option: (option.expected_loss, option.level.steps_run), default=None)
