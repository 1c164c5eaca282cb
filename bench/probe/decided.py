"""Who gets which ending, when computed steps are shared out: by predictions, by chance, by the truth.

A rule takes the price of a step and gives each image the ending of least predicted value + price x steps. The price is
the lowest at which the mean of steps is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bench.kit.caption_runs import Floats

Places = np.ndarray[Any, np.dtype[np.int64]]
DEAR = 1e3  # a price at which all images get the cheapest ending
HALVINGS = 60
TINY = 1e-9


class DecidedRuns(NamedTuple):
    """For each image: the place of its way, and its steps."""

    places: Places
    steps: Floats


Rule = Callable[[float], DecidedRuns]


def by_predictions(predicted: Floats, costs: Mapping[int, int]) -> Rule:
    """`predicted` [n,k] is to be small; `costs`: steps by the place of a way, for those that may be chosen."""
    places, steps = np.array([*costs]), np.array([*costs.values()], float)

    def rule(price: float) -> DecidedRuns:
        chosen = (predicted[:, places] + price * steps).argmin(1)
        return DecidedRuns(places[chosen], steps[chosen])

    return rule


def with_second_thoughts(first: Rule, looked_at: int, second: Rule) -> Rule:
    """Images that the first rule gives the way at this place are looked at, and the second rule decides."""

    def rule(price: float) -> DecidedRuns:
        before, after = first(price), second(price)
        again = before.places == looked_at
        return DecidedRuns(*(np.where(again, late, early) for early, late in zip(before, after, strict=True)))

    return rule


def at_mean_steps(rule: Rule, mean_steps: float) -> DecidedRuns:
    """Where images are alike to a rule, the first ones get what steps are left.

    Raises ValueError if even the cheapest endings cost more.
    """
    found, dearer = rule(DEAR), rule(0.0)
    if found.steps.mean() > mean_steps:
        raise ValueError(f"the cheapest endings cost {found.steps.mean():.1f} steps, more than {mean_steps}")
    if dearer.steps.mean() <= mean_steps:
        return dearer
    low, high = 0.0, DEAR
    for _ in range(HALVINGS):
        price = (low + high) / 2
        decided = rule(price)
        if decided.steps.mean() <= mean_steps:
            high, found = price, decided
        else:
            low, dearer = price, decided
    more = np.maximum(dearer.steps - found.steps, 0)
    raised = (more > 0) & (np.cumsum(more) <= len(more) * mean_steps - found.steps.sum() + TINY)
    return DecidedRuns(*(np.where(raised, late, early) for early, late in zip(found, dearer, strict=True)))


def by_chance(values: Floats, costs: Sequence[int], mean_steps: float) -> Floats:
    """What each image can expect [n] of one way for all, or of the best mix of two, dealt without a look.

    `values` [n,k] are to be small on average. Raises ValueError if no mix costs this.
    """
    best: Floats | None = None
    for one, cheap in enumerate(costs):
        for other, dear in enumerate(costs):
            if cheap <= mean_steps <= dear:
                share = 0.0 if dear == cheap else (mean_steps - cheap) / (dear - cheap)
                mixed: Floats = (1 - share) * values[:, one] + share * values[:, other]
                best = mixed if best is None or mixed.mean() < best.mean() else best
    if best is None:
        raise ValueError(f"no two endings cost {mean_steps} steps on average: {sorted(costs)}")
    return best
