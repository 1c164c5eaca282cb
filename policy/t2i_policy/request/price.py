"""The price of a denoising step: one number that every request pays, from demand, capacity and backlog.

With step-level batches any worker runs any level, so a pool's capacity is one resource: steps a second. The Lagrangian
of that constraint asks each request to take the level of least loss + price * steps. The dearer of two prices counts.

- *Demand* (slow): the least price at which the prompts of late, each at its best level, ask for no more steps than the
  pool makes, while the backlog moves to SLACK_SHARE of the slack within the reach, REACH_S or the slack:

      rate * W(price) <= capacity * (1 + (SLACK_SHARE * slack - backlog) / reach)

  W = mean steps of an image at a price, over the prompt classes seen. It is the dual of the plan's program.
- *Backlog* (fast): a barrier, for what the demand of late does not tell. A burst has a backlog before it has a rate.

      price(p) = max_loss / N * x / (1 - x),   x = clamp((p - LOW) / (HIGH - LOW), 0, 1),   p = backlog / slack

slack = SLO - time of an exact image alone, however busy the pool is: the backlog tells that already. N = steps of the
full schedule. At p = HIGH the cheapest allowed level is served.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from t2i_policy.planning.classes import MUST_BE_EXACT, ClassTable
from t2i_policy.planning.price_turns import PriceTurn
from t2i_policy.pool_view import PoolView

SLACK_SHARE = 0.5  # of the slack that may be used up at a steady load: a standing queue keeps the slots filled
REACH_S = 10.0  # a third of the demand's half-life: what is steered by cannot be known faster
LOW_PRESSURE = 0.25  # below: the backlog sets no price
HIGH_PRESSURE = 0.65  # above: quality is spent to the floor, while what waits can be in time yet
HAIR = 1e-9  # above a turn of the curve: whoever is indifferent there takes the fewer steps, as the curve counts on
LEAST_SLACK = 0.05  # of the SLO, where an exact image takes all of it


@dataclass(frozen=True, slots=True)
class PriceCurve:
    """The whole pool's demand, requests/s, and the mean steps of an image at each price, prices ascending."""

    rate_rps: float = 0.0
    turns: tuple[PriceTurn, ...] = ()


NO_DEMAND = PriceCurve()


def price_curve(classes: ClassTable, rates_rps: Mapping[str, float]) -> PriceCurve:
    """What prompts of these rates by class would run at each price."""
    rate_rps = sum(rates_rps.values())
    if rate_rps <= 0:
        return NO_DEMAND
    changes: list[PriceTurn] = []
    for name, rate in rates_rps.items():
        steps_before = 0.0
        for price, steps in classes.turns.get(name, classes.turns[MUST_BE_EXACT]):
            changes.append(PriceTurn(price, rate / rate_rps * (steps - steps_before)))
            steps_before = steps
    points: dict[float, float] = {}
    mean_steps = 0.0
    for price, change in sorted(changes):
        mean_steps += change
        points[price] = mean_steps
    return PriceCurve(rate_rps, tuple(PriceTurn(price, steps) for price, steps in points.items()))


def slack_of(slo_s: float, exact_s: float) -> float:
    """Seconds that a request may wait, at most, if it ran exactly."""
    return max(slo_s - exact_s, LEAST_SLACK * slo_s)


def demand_price(curve: PriceCurve, pool: PoolView, slack_s: float) -> float:
    """The least price at which demand fits, 0 without any; the dearest that changes something where it never does."""
    if curve.rate_rps <= 0 or pool.steps_per_s <= 0:
        return 0.0
    room = 1 + (SLACK_SHARE * slack_s - pool.backlog_s()) / min(REACH_S, slack_s)
    allowed_steps = pool.steps_per_s * room / curve.rate_rps
    price = next((turn.price for turn in curve.turns if turn.steps <= allowed_steps), curve.turns[-1].price)
    return price * (1 + HAIR)


def backlog_price(
    pressed: float, max_loss: float, base_steps: int, *, low: float = LOW_PRESSURE, high: float = HIGH_PRESSURE
) -> float:
    """What a step costs at this pressure (backlog / slack): 0 at `low`, infinite at `high`, monotone between."""
    share = (pressed - low) / (high - low)
    if share <= 0:
        return 0.0
    return float("inf") if share >= 1 else max_loss / base_steps * share / (1 - share)
