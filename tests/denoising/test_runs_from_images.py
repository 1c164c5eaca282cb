"""Requests with images in the engine: what is told of their steps, what is shown meanwhile, and who is disturbed."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as PillowImage

from t2i_cache.stores import MemoryStore
from t2i_policy.level import Level
from t2i_runtime.drawing import Drawing
from t2i_runtime.input_images import InputImages
from t2i_testing_kit.tiny_pipelines.stock import sample_image
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.errors import JobInvalid
from t2i_worker.jobs import Event, Finished, Image, Job, Joined, ModelFacts, PreviewImage, Progress
from t2i_worker.latents import LatentCache
from t2i_worker.pipelines import LoadedPipeline

STEPS = 6
FACTS = ModelFacts("digest", "euler", "float32", "cpu", STEPS, 3.0, 48, 32, 0, "diffusion")
TEXT = Job("id", "a red circle left of the blue square", "", 1, 3.0, Level(0, STEPS), "png")


def png(picture: PillowImage.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


PHOTO = png(sample_image(96, 96))
HALF = png(PillowImage.fromarray(np.repeat([[0] * 24 + [255] * 24], 32, axis=0).astype(np.uint8)))


def from_images(**images: object) -> Job:
    return replace(TEXT, drawing=Drawing(images=InputImages(**images)))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pipeline(load: Callable[..., LoadedPipeline]) -> LoadedPipeline:
    return load("sd")


@pytest.fixture
async def engine(pipeline: LoadedPipeline) -> AsyncIterator[DiffusionEngine]:
    made = DiffusionEngine(pipeline, FACTS, WarmUpTimes(8, (0.01,) * 8, 0.001), LatentCache(MemoryStore(), FACTS))
    yield made
    await made.close()


async def events_of(engine: DiffusionEngine, job: Job) -> list[Event]:
    return [event async for event in engine.generate(job)]


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(PillowImage.open(io.BytesIO(data)).convert("RGB")).astype(int)


def image_of(events: list[Event]) -> np.ndarray:
    return next(pixels_of(event.data) for event in events if isinstance(event, Image))


async def test_steps_told_are_those_that_run(engine: DiffusionEngine) -> None:
    """Half the strength is half the steps, in progress as in the load; the level stays what was asked for."""
    events = await events_of(engine, from_images(init_image=PHOTO, strength=0.5))
    joined, finished = events[0], events[-1]
    assert isinstance(joined, Joined)
    assert isinstance(finished, Finished)
    assert joined.num_steps == 3
    assert [event for event in events if isinstance(event, Progress)] == [Progress(step, 3) for step in (1, 2, 3)]
    assert (joined.served, finished.served) == (Level(0, STEPS), Level(0, STEPS))
    assert engine.tally.steps_run == 3
    assert engine.load().steps_left == 0
    assert image_of(events).shape == (32, 48, 3)


async def test_less_strength_stays_nearer_to_the_image(engine: DiffusionEngine) -> None:
    whole = await events_of(engine, from_images(init_image=PHOTO, strength=1.0))
    little = await events_of(engine, from_images(init_image=PHOTO, strength=0.2))
    steps = [sum(isinstance(event, Progress) for event in events) for events in (whole, little)]
    assert steps == [6, 1]
    assert not np.array_equal(image_of(whole), image_of(little))


@pytest.mark.parametrize(("strength", "steps"), [(0.7, [1, 2, 3]), (0.4, [1])])
async def test_previews_lead_to_the_image(engine: DiffusionEngine, strength: float, steps: list[int]) -> None:
    """Each shows its own run: it is nearer to that one's image than to another seed's. None is left out."""
    job = replace(from_images(init_image=PHOTO, strength=strength), preview_every_steps=1)
    other = image_of(await events_of(engine, replace(job, seed=5)))
    events = await events_of(engine, job)
    shown = [event for event in events if isinstance(event, PreviewImage)]
    assert [one.step for one in shown] == steps
    assert engine.tally.previews_left_out == 0
    for one in shown:
        mine, others = (np.abs(pixels_of(one.data) - image).mean() for image in (image_of(events), other))
        assert mine < others


async def test_masked_out_half_stays_in_image_and_previews(engine: DiffusionEngine) -> None:
    """Two runs of other seeds agree where the mask is black, and differ where it is white."""
    job = replace(from_images(init_image=PHOTO, mask=HALF, strength=1.0), preview_every_steps=4)
    runs = [await events_of(engine, replace(job, seed=seed)) for seed in (1, 2)]
    apart = np.abs(image_of(runs[0]) - image_of(runs[1]))
    assert apart[:, :16].mean() < 0.2 * apart[:, 32:].mean()
    shown = [next(pixels_of(event.data) for event in run if isinstance(event, PreviewImage)) for run in runs]
    apart = np.abs(shown[0] - shown[1])
    assert apart[:, :16].mean() < 0.5 * apart[:, 32:].mean()


async def test_bad_file_is_the_requests_fault_and_others_go_on(engine: DiffusionEngine) -> None:
    """However often it comes, and beside others: the worker stays in service."""
    bad = from_images(init_image=PHOTO[:500], strength=0.5)
    good = from_images(init_image=PHOTO, strength=0.5)
    jobs = (replace(bad, request_id="1"), good, replace(bad, request_id="2"), TEXT, replace(bad, request_id="3"))
    ended = await asyncio.gather(*(events_of(engine, job) for job in jobs), return_exceptions=True)
    refused = [one for one in ended if isinstance(one, BaseException)]
    assert [type(one) for one in refused] == [JobInvalid] * 3
    assert {str(one) for one in refused} == {"drawing.images.init_image: must be a whole PNG, JPEG or WEBP file"}
    assert engine.tally.failures == {}
    assert engine.load().ready


async def test_cancelled_run_frees_its_place(engine: DiffusionEngine) -> None:
    running = engine.generate(replace(from_images(init_image=PHOTO, strength=1.0), level=Level(0, 500)))
    assert isinstance(await anext(running), Joined)
    await running.aclose()
    while engine.load().running:
        await engine.changed()
    assert engine.tally.cancelled == 1


async def test_negative_prompt_and_arguments_and_samplers_work_too(engine: DiffusionEngine) -> None:
    """Each of them changes the image. DDIM does not tell where it begins; its steps are counted all the same."""
    job = from_images(init_image=PHOTO, strength=0.7)
    images = job.drawing.images
    others = (
        replace(job, negative_prompt="blue"),
        replace(job, drawing=Drawing("unipc", images=images)),
        replace(job, drawing=Drawing("ddim", images=images)),
        replace(job, drawing=Drawing("ddim", {"eta": 0.9}, images=images)),
    )
    seen = [image_of(await events_of(engine, job)).tobytes()]
    for other in others:
        events = await events_of(engine, other)
        assert [event.step for event in events if isinstance(event, Progress)] == [1, 2, 3, 4]
        seen.append(image_of(events).tobytes())
    assert len(set(seen)) == len(seen)
