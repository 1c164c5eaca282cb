"""Placement's single pass chooses what sorting by the rule would choose."""

import random

import pytest

from t2i_policy.batch_limit import NO_LIMIT
from t2i_policy.level import Level
from t2i_policy.pool_view import PoolView, WorkerView, best_finish_s
from t2i_policy.profile import step_time
from t2i_policy.request.placement import FILL_FROM_OCCUPANCY, MIN_BATCH_GAIN, choose_worker

LEVELS = tuple(Level(skip, 50) for skip in (0, 10, 25))
PACES = ((0.1, 0.15, 0.2), (0.1, 0.2, 0.3), (0.08, 0.09, 0.1), (0.1,))


def reference(
    workers: list[WorkerView], level: Level, left_s: float, occupancy: float, out: frozenset[str]
) -> str | None:
    """The rule as sentences: see `placement`."""
    free = [w for w in workers if w.free_slots and w.name not in out]
    steps = level.steps_run
    if occupancy >= FILL_FROM_OCCUPANCY:
        gaining = [
            w for w in free if step_time(w.step_s, 1) >= MIN_BATCH_GAIN * step_time(w.step_s, w.batch_cap) / w.batch_cap
        ]
        in_time = [w for w in gaining if steps * w.join_step_s + w.fixed_s <= left_s]
        if in_time:
            return min(in_time, key=lambda w: (w.free_slots, w.level != level, w.finish_s(steps), w.name)).name
    quickest_s = min([w.step_s[0] for w in free], default=0.0)
    full = [
        w for w in workers if w.ready and not w.free_slots and w.name not in out and 1.25 * w.step_s[0] <= quickest_s
    ]
    if all(w.finish_s(steps) > left_s for w in free) and any(w.finish_s(steps) <= left_s for w in full):
        return None  # it waits for one of these
    if not free:
        return None
    return min(free, key=lambda w: (w.finish_s(steps), w.level != level, w.in_flight, w.name)).name


def test_random_pools() -> None:
    """3000 pools of mixed devices, levels, loads and exclusions; and the finish estimate is the least of all."""
    draw = random.Random(11)
    for _ in range(3000):
        workers = [_worker(draw, number) for number in range(draw.randint(1, 7))]
        level, left_s, occupancy = draw.choice(LEVELS), draw.uniform(0, 12), draw.random()
        out = frozenset(w.name for w in workers if draw.random() < 0.15)
        placement = choose_worker(workers, level, left_s, occupancy, out)
        assert (placement.worker if placement else None) == reference(workers, level, left_s, occupancy, out)
        able = [w for w in workers if w.free_slots] or [w for w in workers if w.ready]
        expected_s = min((w.finish_s(30) for w in able), default=float("inf"))
        assert best_finish_s(workers, 30) == expected_s
        assert PoolView(tuple(workers), 0, 0).best_finish_s(30) == pytest.approx(expected_s)


def _worker(draw: random.Random, number: int) -> WorkerView:
    step_s = draw.choice(PACES)
    running, waiting = draw.randint(0, len(step_s)), draw.choice([0, 0, 0, 1])
    level = draw.choice([None, *LEVELS])
    return WorkerView(
        f"w{number}", draw.random() < 0.9, running, waiting, len(step_s), step_s, draw.choice([0.0, 0.5]),
        30 * (running + waiting), "g", level, batch_limit=draw.choice([1, 2, NO_LIMIT, NO_LIMIT]),
    )  # fmt: skip
