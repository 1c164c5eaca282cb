"""How long a plan takes in a pool of several models: one of the largest that a program must answer in time.

Losses are made up: each model has a mean loss of its own, and prompt classes differ at each level. The demand goes from
a tenth of what the reference model's workers make exactly to more than all workers make at their cheapest levels.
"""

import random
from functools import partial
from typing import Any

from bench.decide.run import Took, quantiles, timed
from t2i_policy.level import Level
from t2i_policy.planning.capacity import worker_rate_rps
from t2i_policy.planning.classes import MUST_BE_EXACT, ClassTable
from t2i_policy.planning.moves import FollowedDemand, MovableGroup, MoveInputs, decide_move
from t2i_policy.planning.plan import GroupCapacity, Method, PromptClass, make_plan

MODELS = {"": (50, 0.0), "medium": (30, 0.02), "small": (20, 0.04), "distilled": (10, 0.07)}  # steps, mean loss
STEP_SPEEDS = {"": 1.0, "medium": 1.5, "small": 2.5, "distilled": 4.0}
DEVICE_SPEEDS = (1.0, 1.7, 2.6, 4.4)
RELOAD_S, LATER_S = 30.0, 1000.0
LEVELS, WORKERS, CLASSES = 10, 256, 12
STEP_S, FIXED_S, SLO_S, FLOOR = (0.084, 0.164, 0.243, 0.320), 0.3, 20.0, 0.15


def levels_of(model: str) -> list[Level]:
    """Ten schedules, from the full one down."""
    steps = MODELS[model][0]
    return [Level(0, steps - number * (steps // LEVELS), model=model) for number in range(LEVELS)]


def groups() -> list[GroupCapacity]:
    each = WORKERS // (len(MODELS) * len(DEVICE_SPEEDS))
    found = []
    for model in MODELS:
        for number, speed in enumerate(DEVICE_SPEEDS):
            step_s = [seconds / (speed * STEP_SPEEDS[model]) for seconds in STEP_S]
            rates = {level: worker_rate_rps(step_s, FIXED_S / speed, level, SLO_S) for level in levels_of(model)}
            found.append(GroupCapacity(f"{model or 'own'}-{number}", each, rates))
    return found


def classes(draws: random.Random, total_rps: float) -> list[PromptClass]:
    shares = [draws.expovariate(1.0) for _ in range(CLASSES)]
    found = []
    for number, share in enumerate(shares):
        losses = {}
        for model, (steps, mean) in MODELS.items():
            for level in levels_of(model):
                shorter = (1 - level.cost / steps) ** 2
                loss = mean * draws.uniform(0.3, 1.7) + 0.2 * shorter * draws.uniform(0.5, 1.5)
                if loss <= FLOOR:
                    losses[level] = loss
        found.append(PromptClass(f"class-{number}", total_rps * share / sum(shares), losses))
    return found


def movable_groups() -> list[MovableGroup]:
    """The same workers, by device: any of them may hold any model."""
    found = []
    for number, speed in enumerate(DEVICE_SPEEDS):
        rates: dict[Level, float] = {}
        for model in MODELS:
            step_s = [seconds / (speed * STEP_SPEEDS[model]) for seconds in STEP_S]
            rates |= {level: worker_rate_rps(step_s, FIXED_S / speed, level, SLO_S) for level in levels_of(model)}
        holding = dict.fromkeys(MODELS, WORKERS // (len(MODELS) * len(DEVICE_SPEEDS)))
        found.append(MovableGroup(f"device-{number}", holding, rates, dict.fromkeys(MODELS, RELOAD_S)))
    return found


def move_times(count: int) -> dict[str, Any]:
    """Quantiles over `count` decisions of a move, and how many moved a worker."""
    given = movable_groups()
    least_rps, most_rps = _demands(groups())
    times: list[Took] = []
    moved = 0
    for number in range(count):
        total_rps = least_rps + (most_rps - least_rps) * number / max(1, count - 1)
        asked = classes(random.Random(number), total_rps)
        rates_rps = {one.name: one.rate_rps for one in asked}
        usual = FollowedDemand({name: 0.8 * rate for name, rate in rates_rps.items()}, 0.0, LATER_S)
        table = ClassTable((), {MUST_BE_EXACT: {}} | {one.name: one.losses for one in asked})
        decided = timed(partial(decide_move, usual, MoveInputs(table, given, rates_rps), LATER_S), times)
        moved += decided.move is not None
    return {**quantiles(times), "moved": moved}


def _demands(given: list[GroupCapacity]) -> tuple[float, float]:
    exact = levels_of("")[0]
    least_rps = 0.1 * sum(group.num_workers * group.rates_rps.get(exact, 0.0) for group in given)
    return least_rps, 1.2 * sum(group.num_workers * max(group.rates_rps.values()) for group in given)


def plan_times(count: int) -> dict[str, Any]:
    """Quantiles over `count` plans, each for a demand and losses of its own, and how many were found in which way."""
    given = groups()
    least_rps, most_rps = _demands(given)
    times: list[Took] = []
    methods: list[Method] = []
    for number in range(count):
        asked = classes(random.Random(number), least_rps + (most_rps - least_rps) * number / max(1, count - 1))
        methods.append(timed(partial(make_plan, given, asked), times).method)
    found = {method.value: methods.count(method) for method in Method if method in methods}
    return {**quantiles(times), "methods": found}
