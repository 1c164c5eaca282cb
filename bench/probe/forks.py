"""What a look may decide: the endings that are left to each run that is looked at, and what they cost."""

from collections.abc import Mapping
from dataclasses import dataclass

CHOSEN = "steps 0, 1, 4, 8"
FORECASTS = {CHOSEN: 4, "forecast 3": 5, "forecast 2": 7, "exact": 12}
LATER = {CHOSEN: 4, "forecast 3": 5, "steps 0, 1, 4, 6, 8, 10": 6, "steps 0, 1, 4 and all from 5": 10}


@dataclass(frozen=True, slots=True)
class LookedRun:
    """`served` is the way that a pool would run. `endings` are the ways that are left after the look, with the computed
    steps of the whole run, those that a new beginning loses among them. `alone`: what ways cost that are chosen before
    the run begins. `mean_steps` is what all deciders may spend. `begins_anew`: an ending other than `served` throws the
    steps before the look away."""

    look: str
    served: str
    mean_steps: float
    endings: Mapping[str, int]
    alone: Mapping[str, int]
    begins_anew: bool = False


def _short(steps: int, tails: Mapping[str, int]) -> LookedRun:
    """On half or more of the noise it goes on in other steps; a new beginning is exact."""
    served = f"{steps} steps"
    return LookedRun(f"{served}, after 2", served, steps, {**tails, "exact": 14}, {**tails, "exact": 12})


def _skip(name: str, mean_steps: float, before: int, alone: Mapping[str, int]) -> LookedRun:
    again = {way: cost if way == name else before + cost for way, cost in alone.items()}
    return LookedRun(f"{name}, after {before}", name, mean_steps, again, alone, begins_anew=True)


FORKS = (
    LookedRun("forecast, after 2", "forecast 3", 5, FORECASTS, FORECASTS),
    LookedRun("forecast, after 3", "forecast 3", 5, LATER, {**LATER, **FORECASTS}),
    _short(6, {"2 of 6 steps, then 2": 4, "6 steps": 6, "2 of 6 steps, then 8": 10}),
    _short(4, {"2 of 4 steps, then 1": 3, "4 steps": 4, "2 of 4 steps, then 3": 5, "2 of 4 steps, then 6": 8}),
    _skip("skip 6", 8, 2, {"skip 6": 6, "exact": 12}),
    _skip("skip 9", 4, 1, {"skip 9": 3, **FORECASTS}),
)
