"""Background requests draw what any request draws, and nobody waits for them longer than a step."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from scripted_model import ScriptedModel, result
from t2i_cache.stores import MemoryStore
from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile
from t2i_scenes import model_path
from t2i_worker.engine.accepted_jobs import MAX_BACKGROUND
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.engine.request import Left, StepEntered
from t2i_worker.engine.simulated import SimulatedEngine
from t2i_worker.errors import BudgetSpent, WorkerBusy
from t2i_worker.jobs import Event, Image, Job, ModelFacts, Progress
from t2i_worker.latents import LatentCache
from t2i_worker.pipelines import LoadedPipeline, load_pipeline
from t2i_worker.service import to_load_message

STEPS = 6
HOUR_S = 3600.0
FACTS = ModelFacts("digest", "flow-euler", "float32", "cpu", STEPS, 2.0, 48, 48, 27 * 16 * 16 * 4, "diffusion")
JOB = Job("id", "a red circle on a plain blue background", "", 7, 2.0, Level(0, STEPS), "png")
ASIDE = replace(JOB, background=True)
Listen = Callable[..., Any]


def in_background(one: Any) -> Any:
    one.request.background = True
    return one


# The step loop.


def test_it_makes_way_at_the_next_boundary_and_loses_no_step(listen: Listen, scripted: Any) -> None:
    """It is in its first step when another request comes: that one has the device from the second step on, alone."""
    model = ScriptedModel(permits=0)
    listening = listen(model, 2)
    aside, first = in_background(scripted(1)), scripted(2)
    listening.post(aside)
    listening.loop.start()
    model.wait_until_in_step(1)
    listening.post(first)
    model.allow()
    listening.wait_for_end(aside, first)
    assert model.batches == [[1], [2], [2], [2], [1], [1]]
    assert (aside.latent, first.latent) == (result(1), result(2))
    assert listening.events(aside).count(StepEntered(1)) == 1  # it joins once, however often it comes back


def test_it_is_not_in_what_the_loop_tells(listen: Listen, scripted: Any) -> None:
    """Gateways see an idle worker: it has room for theirs."""
    model = ScriptedModel(permits=0)
    listening = listen(model, 1)
    aside = in_background(scripted(1))
    listening.post(aside)
    listening.loop.start()
    model.wait_until_in_step(1)
    state = listening.loop.state
    assert (state.running, state.waiting, state.steps_left, state.steps_to_place) == (0, 0, 0, 0)
    model.allow()
    listening.wait_for_end(aside)


def test_it_waits_for_requests_that_are_on_their_way(listen: Listen, scripted: Any) -> None:
    """One whose text is encoded, or whose image is decoded, is there as well: it wants the device too."""
    model = ScriptedModel()
    listening = listen(model, 2)
    aside, first = in_background(scripted(1)), scripted(2)
    with listening.loop.foreground():
        listening.post(aside)
        listening.loop.start()
        listening.post(first)
        listening.wait_for_end(first)
        assert model.batches == [[2], [2], [2]]
    listening.wait_for_end(aside)
    assert model.batches[3:] == [[1], [1], [1]]


def test_one_that_is_cancelled_aside_leaves_at_once(listen: Listen, scripted: Any) -> None:
    """Its thread does not wait until the other requests have ended."""
    model = ScriptedModel(permits=0)
    listening = listen(model, 1)
    aside = in_background(scripted(1))
    listening.post(aside)
    listening.loop.start()
    model.wait_until_in_step(1)
    with listening.loop.foreground():
        model.allow(1)
        listening.loop.cancel(aside.request)
        listening.wait_for_end(aside)
    assert isinstance(aside.error, Left)
    assert model.batches == [[1]]


def test_its_steps_teach_nothing(listen: Listen, scripted: Any) -> None:
    """What gateways judge a worker by is made of the steps that they know of."""
    listening = listen(ScriptedModel(), 1)
    before = listening.loop.state.step_s
    aside = in_background(scripted(1))
    listening.post(aside)
    listening.loop.start()
    listening.wait_for_end(aside)
    assert listening.loop.state.step_s == before
    assert (listening.tally.steps_took_s, listening.tally.steps_usual_s) == (0.0, 0.0)


# The diffusion engine.


@pytest.fixture(scope="module")
def pipeline() -> LoadedPipeline:
    return load_pipeline(model_path(), "fp32", 48, 48, "cpu")


@pytest.fixture
async def engine(pipeline: LoadedPipeline) -> AsyncIterator[DiffusionEngine]:
    latents = LatentCache(MemoryStore(), FACTS)
    made = DiffusionEngine(pipeline, FACTS, WarmUpTimes(2, (0.01, 0.02), 0.001), latents)
    yield made
    await made.close()


async def drawn(engine: Any, job: Job) -> list[Event]:
    return [event async for event in engine.generate(job)]


def image(events: list[Event]) -> bytes:
    return next(event.data for event in events if isinstance(event, Image))


async def test_it_draws_the_same_file_as_in_the_foreground(engine: DiffusionEngine) -> None:
    """To the bit, also when others came in between."""
    expected = image(await drawn(engine, JOB))
    assert image(await drawn(engine, ASIDE)) == expected
    events: list[Event] = []
    others = 0
    async for event in engine.generate(ASIDE):
        events.append(event)
        if isinstance(event, Progress) and event.step in (1, 3):
            await drawn(engine, replace(JOB, prompt="a green ring on a dotted gray wall", seed=event.step))
            others += 1
    assert (image(events), others) == (expected, 2)


async def test_load_counts_it_apart(engine: DiffusionEngine) -> None:
    """In `background` and nowhere else."""
    idle = engine.load()
    events = engine.generate(ASIDE)
    await anext(events)
    load = engine.load()
    await events.aclose()
    assert load.background == 1
    assert replace(load, background=0, step_age_s=0.0) == idle
    assert to_load_message(load).background == 1
    assert engine.load().background == 0


async def test_a_budget_is_kept_while_it_waits(engine: DiffusionEngine) -> None:
    """It gives up where others are there for too long."""
    with engine._jobs.taken(2), pytest.raises(BudgetSpent):
        await drawn(engine, replace(ASIDE, deadline_s=time.monotonic()))


async def test_a_drain_does_not_wait_for_it(engine: DiffusionEngine) -> None:
    """A worker that goes has other things to do; whoever asked tries elsewhere, or does without."""
    events = engine.generate(ASIDE)
    await anext(events)
    await engine.drain()
    await events.aclose()


# The simulated engine.


def simulated(step_s: float) -> SimulatedEngine:
    return SimulatedEngine(FACTS, LevelProfile("simulated", "none", STEPS, (step_s,), 0.0, ()), 1, 1)


async def test_there_are_few_of_them_and_they_take_no_place_of_others() -> None:
    """One too many is refused; an ordinary request still finds room."""
    one = simulated(HOUR_S)
    tasks = [asyncio.ensure_future(drawn(one, ASIDE)) for _ in range(MAX_BACKGROUND)]
    while one.load().background < MAX_BACKGROUND:
        await one.changed()
    with pytest.raises(WorkerBusy):
        await drawn(one, ASIDE)
    tasks += [asyncio.ensure_future(drawn(one, JOB)) for _ in range(2)]  # one runs, one waits
    while one.load().waiting < 1:
        await one.changed()
    load = one.load()
    assert (load.running, load.waiting, load.places, load.background) == (1, 1, 2, MAX_BACKGROUND)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert one.load().background == 0


async def test_a_simulated_one_waits_for_others() -> None:
    """It ends after a request that came in its first step, and is in no tally."""
    one = simulated(0.001)
    ended: list[str] = []

    async def note(job: Job, name: str) -> None:
        await drawn(one, job)
        ended.append(name)

    aside = one.generate(ASIDE)
    await anext(aside)
    first = asyncio.ensure_future(note(JOB, "first"))
    async for _ in aside:
        pass
    ended.append("aside")
    await first
    assert ended == ["first", "aside"]
    assert one.tally.steps_run == STEPS
