"""Noise schedulers as repositories ship them: the folder's own one runs, with the noise of the stock pipeline."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DEISMultistepScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    SASolverScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from t2i_policy.level import Level
from t2i_worker.engine.warm_up import make_schedule
from t2i_worker.errors import JobInvalid
from t2i_worker.pipelines import LoadedPipeline

TOLERANCE = 1e-4
PROMPT = "a red circle left of the blue square"
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
#: `scheduler_config.json` of Stable Diffusion 1.5: it names no `timestep_spacing`.
SHIPPED = {**BETAS, "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1, "num_train_timesteps": 1000}

Loaded = Callable[..., LoadedPipeline]
Stock = Callable[..., Tensor]
Run = Callable[..., list[Tensor]]


@pytest.fixture(scope="module")
def pipeline(load: Callable[..., LoadedPipeline]) -> Loaded:
    """`pipeline(family, scheduler=None, precision="fp32")`: as if the folder held this scheduler; loaded once."""
    loaded = cache(lambda family, precision: load(family, None, precision))

    def of(family: str, scheduler: Any = None, precision: str = "fp32") -> LoadedPipeline:
        made = copy.copy(loaded(family, precision))
        if scheduler is not None:
            made.stock = copy.copy(made.stock)
            made.stock.__dict__["scheduler"] = scheduler
        return made

    return of


@pytest.fixture(scope="module")
def stock(model_folder: Callable[..., Path]) -> Stock:
    """`stock(family, scheduler, steps, dtype, guidance)`: the stock pipeline's final latent of the prompt, seed 5."""

    @cache
    def loaded(family: str, dtype: torch.dtype) -> Any:
        pipeline = DiffusionPipeline.from_pretrained(model_folder(family), dtype=dtype)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline, pipeline.scheduler

    def draw(
        family: str,
        scheduler: Any = None,
        steps: int = 6,
        dtype: torch.dtype = torch.float32,
        guidance: float = 3.0,
    ) -> Tensor:
        pipeline, own = loaded(family, dtype)
        pipeline.scheduler = own if scheduler is None else type(scheduler).from_config(scheduler.config)
        images: Tensor = pipeline(
            PROMPT,
            width=48,
            height=32,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(5),
            output_type="latent",
        ).images
        return images

    return draw


def distance(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one.float() - other.float()).abs().max())


@pytest.mark.parametrize(
    "kind",
    [
        LCMScheduler,
        TCDScheduler,
        EulerAncestralDiscreteScheduler,
        DPMSolverMultistepScheduler,
        UniPCMultistepScheduler,
        DDIMScheduler,
    ],
)
def test_left_over_key_swaps_no_sampler(kind: Any, pipeline: Loaded, stock: Stock, denoise: Run) -> None:
    """`X.from_config(pipe.scheduler.config)` keeps PNDM's `skip_prk_steps`; the folder's sampler runs all the same."""
    scheduler = kind.from_config(PNDMScheduler.from_config(SHIPPED).config)
    assert "skip_prk_steps" in scheduler.config
    made = pipeline("sd", scheduler)
    assert made.scheduler_name == kind.__name__
    assert distance(denoise(made, PROMPT, seed=5, steps=6)[-1], stock("sd", scheduler)) == 0.0


RANDOM = {
    "euler-a": EulerAncestralDiscreteScheduler(**BETAS),
    "lcm": LCMScheduler(**BETAS),
    "tcd": TCDScheduler(**BETAS),
    "ddpm": DDPMScheduler(**BETAS),
    "sde": DPMSolverMultistepScheduler(**BETAS, algorithm_type="sde-dpmsolver++"),
    "sa": SASolverScheduler(**BETAS),
}


@pytest.mark.parametrize("name", RANDOM)
def test_noise_of_random_samplers_is_the_stock_one(name: str, pipeline: Loaded, stock: Stock, denoise: Run) -> None:
    """One generator draws the start and then the steps, as a stock pipeline's does: same seed, same image."""
    ours = denoise(pipeline("sd", RANDOM[name]), PROMPT, seed=5, steps=6)[-1]
    assert distance(ours, stock("sd", RANDOM[name])) == 0.0


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["euler-a", "lcm", "ddpm"])
def test_resumed_random_sampler_goes_on_with_the_same_noise(
    name: str, precision: str, pipeline: Loaded, denoise: Run
) -> None:
    """Resumed from its own latent at any step, a run draws the noise that the full run drew from there on."""
    made = pipeline("sd", RANDOM[name], precision)
    full = denoise(made, PROMPT, seed=5, steps=6)
    for skipped in range(1, 6):
        resumed = denoise(made, PROMPT, seed=5, steps=6, begin=skipped, start=full[skipped])
        assert distance(resumed[-1], full[-1]) <= TOLERANCE, skipped
    other = denoise(made, PROMPT, seed=6, steps=6, begin=2, start=full[2])
    assert distance(other[-1], full[-1]) > 100 * TOLERANCE, "the seed draws the noise"


@pytest.mark.parametrize("kind", [DDIMScheduler, TCDScheduler, DEISMultistepScheduler, EulerDiscreteScheduler])
def test_sampler_without_noise_draws_none(kind: Any, pipeline: Loaded, denoise: Run) -> None:
    """A seed has no say in a resumed run of a sampler that adds no noise as stock pipelines call it."""
    made = pipeline("sd", kind(**BETAS))
    full = denoise(made, PROMPT, seed=5, steps=6)
    ours, other = (denoise(made, PROMPT, seed=seed, steps=6, begin=3, start=full[3])[-1] for seed in (5, 6))
    assert torch.equal(ours, other)


@pytest.mark.parametrize("kind", [PNDMScheduler, HeunDiscreteScheduler, KDPM2DiscreteScheduler])
@pytest.mark.parametrize("config", [SHIPPED, BETAS], ids=["shipped", "defaults"])
def test_samplers_of_several_forwards_run_as_they_are(
    kind: Any, config: dict[str, Any], pipeline: Loaded, stock: Stock, denoise: Run
) -> None:
    """No other sampler takes their place."""
    scheduler = kind.from_config({**config, "skip_prk_steps": True} if kind is PNDMScheduler else config)
    assert distance(denoise(pipeline("sd", scheduler), PROMPT, seed=5, steps=6)[-1], stock("sd", scheduler)) == 0.0


@pytest.mark.parametrize("skipped", [1, 3, 5])
def test_pndm_resumes_by_the_sampler_of_the_same_latents(skipped: int, pipeline: Loaded, denoise: Run) -> None:
    """It needs a history that a resumed run has not; DDIM on its noise levels goes on from where it was."""
    made = pipeline("sd", PNDMScheduler.from_config(SHIPPED))
    full = denoise(made, PROMPT, seed=5, steps=6)
    resumed = denoise(made, PROMPT, seed=5, steps=6, begin=skipped, start=full[skipped])
    assert len(resumed) == len(full) - skipped
    assert distance(resumed[-1], full[-1]) < 0.3 * distance(full[skipped], full[-1])


def test_flow_matching_scheduler_of_two_forwards_runs_as_it_is(pipeline: Loaded, stock: Stock, denoise: Run) -> None:
    """A model of velocities under a sampler of noise predictions would draw garbage."""
    scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
    expected = stock("sd3", scheduler)
    assert distance(denoise(pipeline("sd3", scheduler), PROMPT, seed=5, steps=6)[-1], expected) == 0.0


def test_resumed_linear_multistep_starts_at_first_order(pipeline: Loaded, stock: Stock, denoise: Run) -> None:
    """LMS weighs as many slopes as it has: full runs are the stock ones, resumed ones come close."""
    scheduler = LMSDiscreteScheduler(**BETAS)
    made = pipeline("sd", scheduler)
    full = denoise(made, PROMPT, seed=5, steps=10)
    assert distance(full[-1], stock("sd", scheduler, 10)) <= TOLERANCE
    plain = pipeline("sd", EulerDiscreteScheduler(**BETAS))
    euler = denoise(plain, PROMPT, seed=5, steps=10, begin=5, start=full[5])
    resumed = denoise(made, PROMPT, seed=5, steps=10, begin=5, start=full[5])
    assert distance(resumed[1], euler[1]) <= TOLERANCE, "the first step has one slope only"
    assert distance(resumed[-1], full[-1]) <= distance(euler[-1], full[-1])


def test_flux_with_flow_sigmas_of_its_scheduler_equals_stock(pipeline: Loaded, stock: Stock, denoise: Run) -> None:
    """The stock pipeline lets such a scheduler choose its noise levels itself."""
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    ours = denoise(pipeline("flux", scheduler), PROMPT, seed=5, steps=6)[-1]
    assert distance(ours, stock("flux", scheduler)) <= TOLERANCE


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3", "flux"])
def test_half_precision_equals_stock(family: str, pipeline: Loaded, stock: Stock, denoise: Run) -> None:
    """Guidance and timesteps are rounded where the stock pipeline rounds them, and nowhere else."""
    ours = denoise(pipeline(family, None, "bf16"), PROMPT, seed=5, steps=4, guidance=4.3)[-1]
    assert distance(ours, stock(family, None, 4, torch.bfloat16, 4.3)) == 0.0


def test_refused_number_of_steps_names_its_field(pipeline: Loaded) -> None:
    """LCM takes as many steps as it was distilled for at most: the request is wrong, not the worker."""
    made = pipeline("sd", LCMScheduler(**BETAS))
    with pytest.raises(JobInvalid) as refused:
        make_schedule(made, Level(0, 60))
    ((field, sentence),) = refused.value.violations
    assert field == "level.num_inference_steps"
    assert "60 steps" in sentence
    make_schedule(made, Level(0, 50))
