"""From which price of a step on it is best to run fewer steps: the lower hull of a prompt's losses over steps."""

from collections.abc import Mapping
from typing import NamedTuple

from t2i_policy.level import Level


class PriceTurn(NamedTuple):
    """The price from which so many steps are best, up to the next turn."""

    price: float
    steps: float


def best_steps(losses: Mapping[Level, float]) -> tuple[PriceTurn, ...]:
    """From price 0 up: the lower hull of loss over steps."""
    loss, steps = min((loss, level.steps_run) for level, loss in losses.items())
    turns = [PriceTurn(0.0, steps)]
    # Each round: the least price at which some cheaper level is as good as the present one.
    while cheaper := [(lost, level.steps_run) for level, lost in losses.items() if level.steps_run < steps]:
        price, steps, loss = min(((lost - loss) / (steps - run), run, lost) for lost, run in cheaper)
        turns.append(PriceTurn(price, steps))
    return tuple(turns)
