"""The stock call with the engine's hooks gives what the stock pipeline of the same folder gives, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from torch import Tensor

from t2i_policy.level import Level
from t2i_scenes.sampling import ScenesModel
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.jobs import Job
from t2i_worker.pipelines import LoadedPipeline

TOLERANCE = 1e-4
PROMPT, NEGATIVE = "a red circle left of the blue square", "two green"
FAMILIES = ("sd", "sdxl", "sd3", "flux")


def stock(folder: Path, guidance: float, negative: str, output: str, scheduler: Any = None) -> Any:
    """What the stock pipeline makes of the prompt, seed 5, 4 steps: latent or pixels in 0..1."""
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    if scheduler is not None:
        pipeline.scheduler = scheduler
    options = {"negative_prompt": negative} if negative else {}
    return pipeline(
        PROMPT,
        width=48,
        height=32,
        num_inference_steps=4,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(5),
        output_type=output,
        **options,
    ).images


def distance(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


@pytest.mark.parametrize(
    ("family", "guidance", "negative"),
    [
        pytest.param(family, guidance, negative, id=f"{family}-{guidance}-{negative or 'no'}")
        for family in FAMILIES
        for guidance, negative in ((4.0, ""), (4.0, NEGATIVE), (1.0, ""))
        if not (family == "flux" and negative)
    ],
)
def test_latent_equals_stock(
    family: str,
    guidance: float,
    negative: str,
    model_folder: Callable[..., Path],
    pipeline_of: Callable[[str], LoadedPipeline],
    denoise: Callable[..., list[Tensor]],
) -> None:
    """Guided, with a negative prompt and unguided: the hooks change no image."""
    expected = stock(model_folder(family), guidance, negative, "latent")
    ours = denoise(pipeline_of(family), PROMPT, negative=negative, seed=5, steps=4, guidance=guidance)[-1]
    assert distance(ours, expected) == 0.0


@pytest.mark.parametrize("family", FAMILIES)
def test_image_equals_stock(
    family: str, model_folder: Callable[..., Path], pipeline_of: Callable[[str], LoadedPipeline]
) -> None:
    """The pixels are those that the stock pipeline gives as a Pillow image; height and width are not mixed."""
    (expected,) = stock(model_folder(family), 4.0, "", "pil")
    pipeline = pipeline_of(family)
    job = Job("id", PROMPT, "", 5, 4.0, Level(0, 4), "png")
    (image,) = StockCall(pipeline, pipeline.arguments(job), pipeline.denoiser.forward).draw(5)
    assert image.shape == (32, 48, 3)
    assert np.array_equal(image, np.asarray(expected))


def test_guidance_and_prompts_matter(
    pipeline_of: Callable[[str], LoadedPipeline], denoise: Callable[..., list[Tensor]]
) -> None:
    """The comparisons above mean something: each input moves these tiny models by far more than the tolerance."""
    for family in (*FAMILIES, "scenes"):
        pipeline = pipeline_of(family)
        base = denoise(pipeline, PROMPT, seed=5)[-1]
        for change in ({"guidance": 6.0}, {"seed": 6}) + (({"negative": NEGATIVE},) if family != "flux" else ()):
            assert distance(denoise(pipeline, PROMPT, **{"seed": 5, **change})[-1], base) > 10 * TOLERANCE, change
        assert distance(denoise(pipeline, "two green", seed=5)[-1], base) > 10 * TOLERANCE


@pytest.mark.parametrize("guidance", [2.5, 1.0])
def test_scenes_equals_bare_loop(
    guidance: float,
    model_folder: Callable[..., Path],
    pipeline_of: Callable[[str], LoadedPipeline],
    denoise: Callable[..., list[Tensor]],
) -> None:
    """The embedded model is measured with the bare loop of t2i_scenes, so the worker must draw the same."""
    pipeline = pipeline_of("scenes")
    drawn = ScenesModel.load(model_folder("scenes")).draw(
        [PROMPT], [5], num_inference_steps=4, guidance_scale=guidance, keep_before=range(5)
    )
    latents = denoise(pipeline, PROMPT, seed=5, steps=4, guidance=guidance)
    assert max(distance(latents[step], drawn.latents[step]) for step in range(5)) <= TOLERANCE
    job = Job("id", PROMPT, "", 5, guidance, Level(0, 4), "png")
    (image,) = StockCall(pipeline, pipeline.arguments(job), pipeline.denoiser.forward).draw(5)
    assert abs(image.astype(int) - drawn.images[0].astype(int)).max() <= 1


@pytest.mark.parametrize("kind", [DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler])
def test_other_noise_schedulers_equal_stock(
    kind: Any,
    model_folder: Callable[..., Path],
    load: Callable[..., LoadedPipeline],
    denoise: Callable[..., list[Tensor]],
) -> None:
    """A folder's own noise scheduler is used, multistep ones with their history, and its scaling of start and input."""
    scheduler = kind(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction")
    expected = stock(model_folder("sd", scheduler), 4.0, "", "latent")
    ours = denoise(load("sd", scheduler), PROMPT, seed=5, steps=4, guidance=4.0)[-1]
    assert distance(ours, expected) == 0.0
