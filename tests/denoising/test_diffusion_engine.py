"""The diffusion engine on the embedded model: from a job to an image, with its start fetched and its latents kept."""

import asyncio
import gc
import io
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from t2i_cache.keys import LatentKey, model_fingerprint
from t2i_cache.stores import MemoryStore
from t2i_policy.level import Level
from t2i_scenes import model_path
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.engine.pipeline_run import PipelineRun
from t2i_worker.errors import BudgetSpent, NotFinite, WorkerBusy, WorkerDraining
from t2i_worker.jobs import Event, Finished, Image, Job, Joined, ModelFacts, PreviewImage, Progress, Sink, Source
from t2i_worker.latents import LatentCache
from t2i_worker.pipelines import LoadedPipeline, load_pipeline

STEPS = 6
FACTS = ModelFacts("digest", "flow-euler", "float32", "cpu", STEPS, 2.0, 48, 48, 27 * 16 * 16 * 4, "diffusion")
JOB = Job("id", "a red circle on a plain blue background", "", 7, 2.0, Level(0, STEPS), "png")
SINK = Sink("tenant", "entry", np.ones(3, np.float32))
SOURCE = Source("tenant", "entry")
SAME_IMAGE = replace(SOURCE, same_image=True)


@pytest.fixture(scope="module")
def pipeline() -> LoadedPipeline:
    return load_pipeline(model_path(), "fp32", 48, 48, "cpu")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def engine(pipeline: LoadedPipeline, store: MemoryStore) -> AsyncIterator[DiffusionEngine]:
    made = DiffusionEngine(pipeline, FACTS, WarmUpTimes(2, (0.01, 0.02), 0.001), LatentCache(store, FACTS))
    yield made
    await made.close()


async def run(engine: DiffusionEngine, job: Job) -> list[Event]:
    return [event async for event in engine.generate(job)]


def pixels(events: list[Event]) -> np.ndarray:
    data = next(event.data for event in events if isinstance(event, Image))
    return np.asarray(Pillow.open(io.BytesIO(data)))


def joined(events: list[Event]) -> Joined:
    assert isinstance(events[0], Joined)
    return events[0]


def finished(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


KEY = LatentKey(
    "tenant", model_fingerprint(FACTS, JOB, FACTS.size, num_inference_steps=STEPS, embedder=""), "entry", STEPS
)


async def test_events_come_in_order(engine: DiffusionEngine) -> None:
    """Joined, each step once, the image, the end with times; the same seed draws the same bytes."""
    events = await run(engine, JOB)
    assert joined(events) == Joined(Level(0, STEPS), "AsRequested", 1, num_steps=STEPS)
    assert [event.step for event in events if isinstance(event, Progress)] == [1, 2, 3, 4, 5, 6]
    assert pixels(events).shape == (48, 48, 3)
    assert finished(events).denoise_ms > 0
    again, other = await run(engine, JOB), await run(engine, replace(JOB, seed=8))
    assert np.array_equal(pixels(again), pixels(events))
    assert not np.array_equal(pixels(other), pixels(events))


async def test_previews_come_when_asked(engine: DiffusionEngine) -> None:
    """Every second step an image of where it is going, but not for the last step, whose image follows."""
    events = await run(engine, replace(JOB, preview_every_steps=2))
    previews = [event for event in events if isinstance(event, PreviewImage)]
    assert [event.step for event in previews] == [2, 4]
    assert all(Pillow.open(io.BytesIO(event.data)).size == (48, 48) for event in previews)


async def test_same_image_needs_no_step(engine: DiffusionEngine) -> None:
    """The exact run's final latent is the image of its prompt and seed, to the bit."""
    full = await run(engine, replace(JOB, sink=SINK))
    assert [step for step, _ in finished(full).stored] == [STEPS]
    again = await run(engine, replace(JOB, level=Level(4, STEPS), source=SAME_IMAGE))
    assert joined(again).served == Level(4, STEPS)
    assert not [event for event in again if isinstance(event, Progress)]
    assert np.array_equal(pixels(again), pixels(full))


@pytest.mark.parametrize("skipped", [2, 4])
async def test_one_latent_serves_every_skip(engine: DiffusionEngine, skipped: int) -> None:
    """Another prompt's final latent, noised anew, with K steps less work: near that image, and not it."""
    full = await run(engine, replace(JOB, sink=SINK))
    job = replace(JOB, prompt="a red disc on a plain blue background", seed=8, level=Level(skipped, STEPS))
    resumed = await run(engine, replace(job, source=SOURCE))
    assert joined(resumed).served == Level(skipped, STEPS)
    assert len([event for event in resumed if isinstance(event, Progress)]) == STEPS - skipped
    fresh = await run(engine, replace(job, level=Level(0, STEPS)))
    apart = [np.abs(pixels(resumed).astype(int) - pixels(one).astype(int)).mean() for one in (full, fresh)]
    assert 0 < apart[0] < apart[1]
    assert engine.tally.steps_skipped == skipped


@pytest.mark.parametrize("level", [Level(0, 3), Level(2, STEPS)], ids=["short schedule", "resumed"])
async def test_any_run_is_kept_that_is_asked_for(engine: DiffusionEngine, store: MemoryStore, level: Level) -> None:
    """Under the last step of the full schedule, whatever schedule drew it: the gateway decides what is good enough."""
    await run(engine, replace(JOB, sink=SINK))
    before = {key async for key, _ in store.scan()}
    sink = replace(SINK, entry_id="another")
    events = await run(engine, replace(JOB, level=level, source=SOURCE, sink=sink))
    assert joined(events).served == level
    assert [step for step, _ in finished(events).stored] == [STEPS]
    assert {key async for key, _ in store.scan()} - before == {replace(KEY, entry_id="another")}


@pytest.mark.parametrize("source", [SOURCE, SAME_IMAGE], ids=["another prompt's", "its own"])
@pytest.mark.parametrize("how", ["missing", "corrupt"])
async def test_bad_latent_means_a_run_from_noise(
    engine: DiffusionEngine, store: MemoryStore, how: str, source: Source
) -> None:
    full = await run(engine, replace(JOB, sink=SINK))
    data = await store.get(KEY)
    assert data is not None
    if how == "missing":
        await store.delete(KEY)
    else:
        await store.put(KEY, data[:-40] + bytes(40))
    events = await run(engine, replace(JOB, level=Level(4, STEPS), source=source))
    assert joined(events).served == Level(0, STEPS)
    assert joined(events).reason == ("LatentMissing" if how == "missing" else "LatentCorrupt")
    assert np.array_equal(pixels(events), pixels(full))


async def test_latent_of_another_guidance_is_not_used(engine: DiffusionEngine) -> None:
    """What a latent depends on is in its key: other guidance finds nothing and starts from noise."""
    await run(engine, replace(JOB, sink=SINK))
    events = await run(engine, replace(JOB, guidance_scale=3.0, level=Level(4, STEPS), source=SOURCE))
    assert joined(events).served == Level(0, STEPS)


async def test_values_that_are_not_finite_are_no_image(
    engine: DiffusionEngine, pipeline: LoadedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model gone wrong fails this request with its own error; the engine serves the next."""
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.denoiser, "forward", lambda call, _: (torch.full_like(call["sample"], float("nan")),))
        with pytest.raises(NotFinite):
            await run(engine, JOB)
    assert pixels(await run(engine, JOB)).any()
    assert engine.load().running == 0


async def test_full_engine_refuses_and_frees_places(engine: DiffusionEngine) -> None:
    """Past batch and queue it is WorkerBusy at once; when the others have ended there is room again."""
    places = engine.load().batch_cap + engine.load().queue_cap
    runs = [asyncio.create_task(run(engine, JOB)) for _ in range(places)]
    while engine.load().running + engine.load().waiting < places:
        await engine.changed()
    with pytest.raises(WorkerBusy):
        await run(engine, JOB)
    for events in await asyncio.gather(*runs):
        finished(events)
    finished(await run(engine, JOB))


async def test_leaving_frees_the_place(engine: DiffusionEngine) -> None:
    """A reader that goes away after the first event leaves nothing running."""
    events = engine.generate(replace(JOB, level=Level(0, 500)))
    async for _ in events:
        break
    await events.aclose()
    while engine.load().running:
        await engine.changed()
    finished(await run(engine, JOB))
    assert engine.tally.cancelled == 1


async def test_drain_ends_what_is_accepted_and_takes_no_more(engine: DiffusionEngine) -> None:
    """The running one gets its image, a new one WorkerDraining."""
    running = asyncio.create_task(run(engine, JOB))
    await engine.changed()
    await engine.drain()
    finished(await running)
    with pytest.raises(WorkerDraining):
        await run(engine, JOB)
    assert engine.load().draining


async def test_budget_already_spent_never_starts(engine: DiffusionEngine) -> None:
    """No step is spent on a request whose deadline has passed."""
    with pytest.raises(BudgetSpent):
        await run(engine, replace(JOB, deadline_s=0.0))
    assert engine.tally.steps_run == 0


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[weakref.WeakSet[PipelineRun]]:
    """Those of the test that are in memory, while the garbage collector rests."""
    noted = weakref.WeakSet[PipelineRun]()

    def note(*args: Any) -> PipelineRun:
        run = PipelineRun(*args)
        noted.add(run)
        return run

    monkeypatch.setattr("t2i_worker.engine.diffusion.PipelineRun", note)
    gc.disable()
    yield noted
    gc.enable()


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize(
    "job", [JOB, replace(JOB, preview_every_steps=2, sink=SINK), replace(JOB, level=Level(2, STEPS), source=SOURCE)]
)
async def test_run_is_freed_without_the_garbage_collector(
    engine: DiffusionEngine, job: Job, early: bool, runs: weakref.WeakSet[PipelineRun]
) -> None:
    """It holds encoded texts and images on the device. The collector comes by after thousands of requests."""
    async with aclosing(engine.generate(job)) as events:
        async for event in events:
            if isinstance(event, Progress):
                assert runs
                if early:
                    break
    await asyncio.to_thread(wait_until_none_is_left, runs)


def wait_until_none_is_left(runs: weakref.WeakSet[PipelineRun]) -> None:
    ends_s = time.monotonic() + 60
    while runs:
        assert time.monotonic() < ends_s, "a run was not freed"
        time.sleep(0.05)
