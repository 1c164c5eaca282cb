"""A seed is another picture: a run that starts from another seed's latent has the noise of its own seed."""

import asyncio
import inspect
import io
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from PIL import Image as Pillow

from t2i_cache.stores import MemoryStore
from t2i_policy.level import Level
from t2i_scenes import model_path
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.engine.noise_scheduler import OwnScheduler, Start
from t2i_worker.jobs import Image, Job, ModelFacts, Sink, Source
from t2i_worker.latents import LatentCache
from t2i_worker.pipelines import LoadedPipeline, load_pipeline

STEPS, THEIRS = 6, 7
FACTS = ModelFacts("digest", "flow-euler", "float32", "cpu", STEPS, 2.0, 48, 48, 27 * 16 * 16 * 4, "diffusion")
JOB = Job("id", "a red circle on a plain blue background", "", THEIRS, 2.0, Level(0, STEPS), "png")
SINK = Sink("tenant", "entry", np.ones(3, np.float32))
SOURCE = Source("tenant", "entry")
RESUMED = replace(JOB, level=Level(2, STEPS), source=SOURCE)
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture(scope="module")
def pipeline() -> LoadedPipeline:
    return load_pipeline(model_path(), "fp32", 48, 48, "cpu")


@pytest.fixture
async def engine(pipeline: LoadedPipeline) -> AsyncIterator[DiffusionEngine]:
    made = DiffusionEngine(pipeline, FACTS, WarmUpTimes(4, (0.01,) * 4, 0.001), LatentCache(MemoryStore(), FACTS))
    await draw(made, replace(JOB, sink=SINK))
    yield made
    await made.close()


async def draw(engine: DiffusionEngine, job: Job) -> np.ndarray:
    (data,) = [event.data async for event in engine.generate(job) if isinstance(event, Image)]
    return np.asarray(Pillow.open(io.BytesIO(data))).astype(float)


async def test_every_seed_draws_another_image_from_one_latent(engine: DiffusionEngine) -> None:
    """Without the noise of their own seeds all of these were bit-equal."""
    images = await asyncio.gather(*(draw(engine, replace(RESUMED, seed=seed)) for seed in (1, 2, 3, THEIRS)))
    assert min(np.abs(one - other).mean() for one, other in itertools.combinations(images, 2)) > 2


@pytest.mark.parametrize(
    "scheduler",
    [
        EulerDiscreteScheduler(**BETAS),
        EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1, use_karras_sigmas=True),
        DDIMScheduler(**BETAS, clip_sample=False),
        DPMSolverMultistepScheduler(**BETAS, use_karras_sigmas=True),
        UniPCMultistepScheduler(**BETAS),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        EulerAncestralDiscreteScheduler(**BETAS),
    ],
    ids=lambda one: type(one).__name__,
)
@pytest.mark.parametrize("step", [1, 3, 5])
def test_final_latent_gets_the_noise_of_its_step(scheduler: Any, step: int) -> None:
    """As diffusers adds it for an image-to-image run, at every noise level; after the last step it is the image."""
    clean, own = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def noised(noise: torch.Tensor) -> torch.Tensor:
        plain = type(scheduler).from_config(scheduler.config)
        plain.set_timesteps(STEPS)
        at = plain.timesteps[step : step + 1]
        if isinstance(plain, FlowMatchEulerDiscreteScheduler):
            return plain.scale_noise(clean, at, noise)
        return plain.add_noise(clean, noise, at)

    assert torch.allclose(resumed_at(scheduler, step, clean, own), noised(own), rtol=1e-5, atol=1e-5)
    assert torch.equal(resumed_at(scheduler, STEPS, clean, own), clean)


def resumed_at(scheduler: Any, step: int, stored: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The latent that enters a step when a stock loop runs with a start."""
    own = OwnScheduler(scheduler, STEPS, lambda _: None)
    own.start = Start(stored, step, is_final=True)
    own.scheduler.set_timesteps(STEPS)
    latent, generator = noise * float(getattr(own.scheduler, "init_noise_sigma", 1.0)), torch.Generator().manual_seed(0)
    draws = {"generator": generator} if "generator" in inspect.signature(own.scheduler.step).parameters else {}
    for timestep in own.scheduler.timesteps[:step]:
        if hasattr(own.scheduler, "scale_model_input"):
            own.scheduler.scale_model_input(latent, timestep)
        latent = own.scheduler.step(torch.zeros_like(stored), timestep, latent, **draws, return_dict=False)[0]
    return latent
