"""The step loop is exact: hand-computed batches of mixed levels, joins inside a step, a slowdown, and a naive copy."""

import random
from math import inf

import pytest

from t2i_simulator.stepping import SimulatedJob, SimulatedStepLoop


def ends(loop: SimulatedStepLoop, joins: list[tuple[float, int]]) -> dict[int, float]:
    """Run (at_s, steps) joins to the end; request number -> when its steps are done."""
    done: dict[int, float] = {}
    for number, (at_s, steps) in enumerate(joins):
        while loop.due_s <= at_s:
            now_s = loop.due_s
            done |= {job.request: now_s for job in loop.finish_due()}
        loop.join(SimulatedJob(number, steps), at_s)
    while loop.due_s < inf:
        now_s = loop.due_s
        done |= {job.request: now_s for job in loop.finish_due()}
    return done


CASES = {
    "alone": ([(0.5, 3)], {0: 3.5}),
    "two at once share every step": ([(0.0, 3), (0.0, 3)], {0: 4.5, 1: 4.5}),
    "a join in the middle of a step waits for its end": ([(0.0, 3), (0.25, 2)], {0: 4.0, 1: 4.0}),
    "a join on a boundary takes part at once": ([(0.0, 3), (1.0, 2)], {0: 4.0, 1: 4.0}),
    "two joins inside one step share the boundary": ([(0.0, 4), (0.2, 1), (0.7, 1)], {0: 5.0, 1: 3.0, 2: 3.0}),
    "who ends frees the others' pace": ([(0.0, 1), (0.0, 3)], {0: 1.5, 1: 3.5}),
    "a join in the last step of another": ([(0.0, 2), (1.5, 2)], {0: 2.0, 1: 4.0}),
    "a full batch makes the fourth wait for a slot": (
        [(0.0, 1), (0.0, 2), (0.0, 3), (0.0, 1)],
        {0: 2.0, 1: 4.0, 3: 4.0, 2: 5.0},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_hand_computed(case: str) -> None:
    """Steps take 1, 1.5 and 2 s at batch 1, 2 and 3."""
    joins, expected = CASES[case]
    assert ends(SimulatedStepLoop((1.0, 1.5, 2.0), 3), joins) == pytest.approx(expected)


def test_slowdown_begins_with_the_next_step() -> None:
    """Half of the first step is done at 0.5; two steps at three seconds follow it."""
    loop = SimulatedStepLoop((1.0,), 1)
    loop.join(SimulatedJob(0, 3), 0.0)
    loop.slow_down(3.0, 0.5)
    assert loop.due_s == pytest.approx(1.0 + 2 * 3.0)


def test_some_give_way_on_a_device_that_was_slowed_down() -> None:
    """At four times the step all four would end at 16 s, late by 10. One alone takes 4 s; those behind it end early."""
    loop = SimulatedStepLoop((0.1, 0.2, 0.3, 0.4), 4)
    for number in range(4):
        loop.join(SimulatedJob(number, 10, due_s=6.0), 0.0)
    loop.slow_down(4.0, 0.0)
    done: dict[int, float] = {}
    while loop.due_s < inf:
        now_s = loop.due_s
        done |= {job.request: now_s for job in loop.finish_due()}
    assert done[0] == pytest.approx(4.0)
    assert {0, *(job.request for job in loop.take_hopeless())} | done.keys() == {0, 1, 2, 3}


def test_steps_left_falls_at_boundaries() -> None:
    """Owed steps of running and waiting requests, looked at between boundaries."""
    loop = SimulatedStepLoop((1.0, 1.5), 2)
    for number, steps in enumerate((3, 5, 4)):
        loop.join(SimulatedJob(number, steps), 0.0)
    assert [loop.steps_left(loop.steps_done(at_s)) for at_s in (0.0, 1.4, 1.5, 3.1)] == [12, 12, 10, 8]


def test_same_as_stepping_one_by_one() -> None:
    """500 random streams of joins: the lazy loop ends every request when a loop that takes every step does."""
    draw = random.Random(5)
    for _ in range(500):
        step_s = tuple(sorted(draw.uniform(0.5, 2.0) for _ in range(3)))
        at_s, joins = 0.0, []
        for _ in range(12):
            at_s += draw.expovariate(0.4)
            joins.append((at_s, draw.randint(1, 6)))
        assert ends(SimulatedStepLoop(step_s, 3), joins) == pytest.approx(_step_by_step(step_s, joins))


def _step_by_step(step_s: tuple[float, ...], joins: list[tuple[float, int]]) -> dict[int, float]:
    now_s, running, done = 0.0, {}, {}
    waiting = list(enumerate(joins))
    while waiting or running:
        if not running:
            now_s = max(now_s, waiting[0][1][0])
        while waiting and waiting[0][1][0] <= now_s + 1e-9 and len(running) < len(step_s):
            number, (_, steps) = waiting.pop(0)
            running[number] = steps
        now_s += step_s[len(running) - 1]
        running = {number: left - 1 for number, left in running.items()}
        done |= {number: now_s for number, left in running.items() if not left}
        running = {number: left for number, left in running.items() if left}
    return done
