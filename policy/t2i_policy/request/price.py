"""The price of a denoising step: one number that every request pays, from the pool's backlog.

With step-level batches any worker runs any level, so a pool's capacity is one resource: steps a second. The Lagrangian
of that constraint asks each request to take the level of least loss + price * steps. The backlog is what the pool is
behind with, so it is where the price is read off: the more of the slack it eats, the dearer a step.

    price(p) = max_loss / N * x^2 / (1 - x),   x = clamp((p - LOW) / (HIGH - LOW), 0, 1),   p = backlog / slack

slack = SLO - time of an exact image alone, however busy the pool is: the backlog tells that already. N = steps of the
full schedule. At p = HIGH the cheapest allowed level is served. The square keeps the first prices small: where a short
schedule loses little, little of the backlog suffices. A forecast of the price from the demand of late was measured
and earned nothing (docs/decisions/2026-11-29-one-price.md). A step of another image size costs `step_cost` times this
(see `image_size`).
"""

LOW_PRESSURE = 0.15  # below: the backlog sets no price
HIGH_PRESSURE = 0.65  # above: quality is spent to the floor, while what waits can be in time yet
LEAST_SLACK = 0.05  # of the SLO, where an exact image takes all of it


def slack_of(slo_s: float, exact_s: float) -> float:
    """Seconds that a request may wait, at most, if it ran exactly."""
    return max(slo_s - exact_s, LEAST_SLACK * slo_s)


def backlog_price(
    pressed: float, max_loss: float, base_steps: int, *, low: float = LOW_PRESSURE, high: float = HIGH_PRESSURE
) -> float:
    """What a step costs at this pressure (backlog / slack): 0 at `low`, infinite at `high`, monotone between."""
    share = (pressed - low) / (high - low)
    if share <= 0:
        return 0.0
    return float("inf") if share >= 1 else max_loss / base_steps * share**2 / (1 - share)
