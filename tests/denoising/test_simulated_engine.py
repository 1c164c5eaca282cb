"""The simulated engine keeps a real engine's rules: order of events, caps, budget, drain."""

import asyncio
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile
from t2i_worker.engine import simulated
from t2i_worker.engine.simulated import SimulatedEngine
from t2i_worker.errors import BudgetSpent, WorkerBusy, WorkerDraining
from t2i_worker.jobs import Event, Finished, Image, Job, Joined, ModelFacts, Progress

FACTS = ModelFacts("simulated", "simulated", "bf16", "none", 10, 1.0, 16, 8, 0, "simulated")
JOB = Job("id", "a prompt", "", 1, 1.0, Level(0, 10), "png")
HOUR_S = 3600.0


def engine(step_s: float = 0.0, cap: int = 2, queue: int = 1) -> SimulatedEngine:
    return SimulatedEngine(FACTS, LevelProfile("simulated", "none", 10, (step_s,) * cap, 0.0, ()), cap, queue)


def play_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of the simulated engine take what they should, whatever this machine does meanwhile."""
    now_s = 0.0

    async def sleep(seconds: float) -> None:
        nonlocal now_s
        due_s = now_s + seconds
        await asyncio.sleep(0)
        now_s = max(now_s, due_s)

    monkeypatch.setattr(simulated, "asyncio", SimpleNamespace(sleep=sleep, Lock=asyncio.Lock))
    monkeypatch.setattr(simulated, "time", SimpleNamespace(monotonic=lambda: now_s))


async def run(one: SimulatedEngine, job: Job) -> list[Event]:
    return [event async for event in one.generate(job)]


async def test_events_are_those_of_an_engine() -> None:
    """Joined, progress, image, finished; a skip is taken at its word and counted."""
    one = engine()
    events = await run(one, replace(JOB, level=Level(4, 10)))
    assert [type(event) for event in events] == [Joined, Progress, Image, Finished]
    assert isinstance(events[0], Joined)
    assert events[0].served == Level(4, 10)
    assert (one.tally.steps_run, one.tally.steps_skipped) == (6, 4)


async def test_progress_is_reported_as_steps_go() -> None:
    """Of steps that take a while each one, of quick ones several at once."""
    events = await run(engine(step_s=0.06), replace(JOB, level=Level(7, 10)))
    assert [event.step for event in events if isinstance(event, Progress)] == [8, 9, 10]
    events = await run(engine(step_s=0.03), replace(JOB, level=Level(3, 10)))
    assert [event.step for event in events if isinstance(event, Progress)] == [6, 9, 10]


@pytest.mark.parametrize("jobs", [1, 2])
async def test_load_tells_that_steps_are_on_time(jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch shares its steps: two jobs of 60 ms are 60 ms of the worker's time, as measured and as usual."""
    play_time(monkeypatch)
    one = engine(step_s=0.02)
    await asyncio.gather(*(run(one, replace(JOB, level=Level(7, 10))) for _ in range(jobs)))
    load = one.load()
    assert 0.059 < load.steps_took_s < 0.1
    assert 0.06 <= load.steps_usual_s < 0.15
    assert load.steps_took_s < 3 * load.steps_usual_s


async def test_places_are_limited_and_shown() -> None:
    """Two run, one waits, the fourth is refused; the load says so."""
    one = engine(step_s=HOUR_S)
    tasks = [asyncio.create_task(run(one, JOB)) for _ in range(3)]
    while one.load().running < 2 or one.load().waiting < 1:
        await one.changed()
    load = one.load()
    assert (load.running, load.waiting, load.steps_left) == (2, 1, 30)
    with pytest.raises(WorkerBusy):
        await run(one, JOB)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert (one.load().running, one.load().waiting, one.load().steps_left) == (0, 0, 0)


async def test_budget_too_small_ends_in_deadline_exceeded() -> None:
    """An hour's work with no time left: it fails now, and its place is free."""
    one = engine(step_s=HOUR_S)
    with pytest.raises(BudgetSpent):
        await run(one, replace(JOB, deadline_s=time.monotonic()))
    assert one.load().running == 0


async def test_drain_takes_no_more() -> None:
    """Nothing runs, so it drains at once; later jobs are refused."""
    one = engine()
    await one.drain()
    assert one.load().draining
    with pytest.raises(WorkerDraining):
        await run(one, JOB)
