"""Requests of one batch with sizes, numbers of images and pipeline arguments of their own: each is what it is alone."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image as Pillow

from t2i_cache.stores import MemoryStore
from t2i_policy.image_size import ImageSize
from t2i_policy.level import Level
from t2i_runtime.drawing import PLAIN, Drawing
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.errors import JobInvalid
from t2i_worker.jobs import Image, Job, ModelFacts, Sink, Source
from t2i_worker.latents import LatentCache
from t2i_worker.pipelines import LoadedPipeline

STEPS = 4
FACTS = ModelFacts("digest", "euler", "float32", "cpu", STEPS, 3.0, 48, 32, 0, "diffusion")
JOB = Job("id", "a red circle left of the blue square", "", 1, 3.0, Level(0, STEPS), "png")
JOBS = {
    "plain": JOB,
    "another size": replace(JOB, seed=2, size=ImageSize(32, 64)),
    "two images": replace(JOB, seed=3, drawing=Drawing(arguments={"num_images_per_prompt": 2})),
    "rescaled guidance": replace(JOB, seed=4, drawing=Drawing(arguments={"guidance_rescale": 0.7})),
    "unguided and longer": replace(JOB, seed=5, guidance_scale=1.0, level=Level(0, 6)),
}


@pytest.fixture(scope="module")
def pipeline(load: Callable[..., LoadedPipeline]) -> LoadedPipeline:
    return load("sd")


@pytest.fixture
async def engine(pipeline: LoadedPipeline) -> AsyncIterator[DiffusionEngine]:
    times = WarmUpTimes(8, (0.01,) * 8, 0.001)
    made = DiffusionEngine(pipeline, FACTS, times, LatentCache(MemoryStore(), FACTS))
    yield made
    await made.close()


async def draw(engine: DiffusionEngine, job: Job) -> list[Image]:
    return [event async for event in engine.generate(job) if isinstance(event, Image)]


async def test_mixed_arguments_give_what_each_gives_alone(engine: DiffusionEngine, pipeline: LoadedPipeline) -> None:
    """By shape they share forwards or not; nobody's image knows."""
    together = await asyncio.gather(*(draw(engine, job) for job in JOBS.values()))
    for (sentence, job), images in zip(JOBS.items(), together, strict=True):
        alone = StockCall(pipeline, pipeline.arguments(job), pipeline.denoiser.forward).draw(job.seed)
        ours = np.stack([np.asarray(Pillow.open(io.BytesIO(image.data))) for image in images])
        assert ours.shape == alone.shape, sentence
        assert np.abs(ours.astype(int) - alone).max() <= 1, sentence
        assert {(image.width, image.height) for image in images} == {job.size or ImageSize(48, 32)}, sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"size": ImageSize(33, 32)},
        {"drawing": Drawing(arguments={"num_images_per_prompt": "many"})},
        {"drawing": Drawing(arguments={"guidance_of_tomorrow": 1})},
        {"drawing": Drawing(arguments={"guidance_rescale": "much"})},
    ],
    ids=["size", "type", "name", "value"],
)
async def test_arguments_that_the_pipeline_refuses_are_the_requests_fault(
    changes: dict[str, object], engine: DiffusionEngine
) -> None:
    """INVALID_ARGUMENT, and the worker stays in service however often it is asked."""
    for number in range(4):
        with pytest.raises(JobInvalid):
            await draw(engine, replace(JOB, request_id=str(number), **changes))
    assert engine.load().ready
    assert engine.tally.failures == {}
    assert len(await draw(engine, JOB)) == 1


async def test_skipped_steps_do_not_mind_the_guidance_of_others(engine: DiffusionEngine) -> None:
    """A request with guidance has twice the rows of one without, though they share forwards."""
    for guidance in (1.0, JOB.guidance_scale):
        job = replace(JOB, guidance_scale=guidance)
        await draw(engine, replace(job, sink=Sink("tenant", "entry", np.ones(3, np.float32))))
        await draw(engine, replace(job, level=Level(2, STEPS), source=Source("tenant", "entry")))
    assert engine.tally.steps_skipped == 4


async def test_latents_of_other_drawings_are_not_shared(engine: DiffusionEngine) -> None:
    """What an image depends on is in its key: arguments, sampler and size."""
    sink = Sink("tenant", "entry", np.ones(3, np.float32))
    await draw(engine, replace(JOB, sink=sink, drawing=Drawing(arguments={"guidance_rescale": 0.7})))
    resumed = replace(JOB, level=Level(2, STEPS), source=Source("tenant", "entry"))
    for other in (PLAIN, Drawing(arguments={"guidance_rescale": 0.6}), Drawing("ddim", {"guidance_rescale": 0.7})):
        await draw(engine, replace(resumed, drawing=other))
        assert engine.tally.steps_skipped == 0
    await draw(engine, replace(resumed, size=ImageSize(32, 64), drawing=Drawing(arguments={"guidance_rescale": 0.7})))
    assert engine.tally.steps_skipped == 0, "another size is another key"
    await draw(engine, replace(resumed, drawing=Drawing(arguments={"guidance_rescale": 0.7})))
    assert engine.tally.steps_skipped == 2
