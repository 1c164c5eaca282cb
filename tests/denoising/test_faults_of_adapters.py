"""Faults that the hand-written adapters had; stock code decides now, and these tests hold it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
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
    LCMScheduler,
    UniPCMultistepScheduler,
)

from t2i_policy.level import Level
from t2i_runtime.drawing import Drawing
from t2i_testing_kit.tiny_pipelines.families import FAMILIES, save_family
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest, load_stock, stock_run
from t2i_worker.engine.noise_scheduler import OwnScheduler, StepTaken
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.errors import JobInvalid
from t2i_worker.jobs import Job
from t2i_worker.pipelines import LoadedPipeline, load_pipeline

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.fixture
def family(tmp_path: Path) -> Callable[[str], LoadedPipeline]:
    def load(name: str) -> LoadedPipeline:
        tiny = FAMILIES[name]
        return load_pipeline(save_family(name, tmp_path), "fp32", tiny.width, tiny.height, "cpu")

    return load


def job(name: str, **changes: Any) -> Job:
    tiny = FAMILIES[name]
    asked = Job("id", TinyRequest().prompt, "", 0, tiny.guidance, Level(0, tiny.steps), "png")
    return replace(asked, **changes)


def test_scaling_of_a_vae_with_mean_and_deviation_is_stock(family: Callable[..., Any], tmp_path: Path) -> None:
    """Playground v2.5: pixels were off by most of their range."""
    pipeline = family("playground-v2.5")
    (image,) = StockCall(pipeline, pipeline.arguments(job("playground-v2.5")), pipeline.denoiser.forward).draw(0)
    stock = stock_run(load_stock(tmp_path), "playground-v2.5", TinyRequest())
    assert np.array_equal(image, stock.pixels)


def test_unet_that_takes_guidance_as_an_input_gets_one_row(family: Callable[..., Any], tmp_path: Path) -> None:
    """LCM-SDXL: no second row without the prompt, and the stock image."""
    pipeline, rows = family("sdxl-lcm"), set()

    def denoise(arguments: Any) -> Any:
        rows.add((len(arguments["sample"]), arguments["timestep_cond"] is not None))
        return pipeline.denoiser.forward(arguments)

    (image,) = StockCall(pipeline, pipeline.arguments(job("sdxl-lcm")), denoise).draw(0)
    assert rows == {(1, True)}
    assert np.array_equal(image, stock_run(load_stock(tmp_path), "sdxl-lcm", TinyRequest()).pixels)


def test_image_that_the_safety_checker_holds_back_is_an_error_of_the_request(family: Callable[..., Any]) -> None:
    """Not a black image with status OK, and never the image itself."""
    pipeline = family("sd15-flagged")
    with pytest.raises(JobInvalid, match="safety checker held the image back"):
        StockCall(pipeline, pipeline.arguments(job("sd15-flagged")), pipeline.denoiser.forward).draw(0)


def test_safety_checker_lets_other_images_pass(family: Callable[..., Any], tmp_path: Path) -> None:
    """It runs, as in the stock pipeline."""
    pipeline = family("sd15")
    (image,) = StockCall(pipeline, pipeline.arguments(job("sd15")), pipeline.denoiser.forward).draw(0)
    assert np.array_equal(image, stock_run(load_stock(tmp_path), "sd15", TinyRequest()).pixels)


@pytest.mark.parametrize("name", ["flux-schnell", "flux-dev", "flux2-klein"])
def test_negative_prompt_that_would_not_be_read_is_refused(name: str, family: Callable[..., Any]) -> None:
    """A client must not believe that it had an effect."""
    with pytest.raises(JobInvalid, match="negative_prompt"):
        family(name).arguments(job(name, negative_prompt="blurry"))


def test_negative_prompt_of_flux_is_read_with_true_guidance(family: Callable[..., Any]) -> None:
    """As the stock pipeline does it."""
    pipeline = family("flux-dev")
    images = [
        StockCall(pipeline, pipeline.arguments(one), pipeline.denoiser.forward).draw(0)
        for one in (
            job("flux-dev", drawing=Drawing(arguments={"true_cfg_scale": 3.0}), negative_prompt=text)
            for text in ("two green", "a square")
        )
    ]
    assert not np.array_equal(*images)


def test_argument_that_a_pipeline_does_not_take_is_refused(family: Callable[..., Any]) -> None:
    """By its name, before anything runs."""
    with pytest.raises(JobInvalid, match="clip_skipped"):
        family("sd21").arguments(job("sd21", drawing=Drawing(arguments={"clip_skipped": 2})))


def test_clip_skip_reads_an_earlier_layer(family: Callable[..., Any]) -> None:
    """Stock fails here: diffusers asks CLIP for a part that transformers 5 no longer has."""
    pipeline = family("sd15")
    encoded = [
        pipeline.stock.encode_prompt(TinyRequest().prompt, "cpu", 1, False, clip_skip=skip)[0] for skip in (None, 1)
    ]
    encoder, tokens = (
        pipeline.stock.text_encoder,
        pipeline.stock.tokenizer(
            TinyRequest().prompt, padding="max_length", max_length=40, truncation=True, return_tensors="pt"
        ),
    )
    layers = encoder(tokens.input_ids, output_hidden_states=True).hidden_states
    assert torch.equal(encoded[1], encoder.final_layer_norm(layers[-2]))
    assert not torch.equal(*encoded)


SAMPLERS = {
    "ddim": DDIMScheduler(**BETAS, clip_sample=False),
    "euler": EulerDiscreteScheduler(**BETAS),
    "euler-a": EulerAncestralDiscreteScheduler(**BETAS),
    "lcm": LCMScheduler(**BETAS),
    "dpm++": DPMSolverMultistepScheduler(**BETAS),
    "unipc": UniPCMultistepScheduler(**BETAS),
    "flow": FlowMatchEulerDiscreteScheduler(shift=3.0),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_preview_shows_what_the_model_heads_for(name: str) -> None:
    """Not the noisy latent: with a model that knows the picture, the estimate after a step is the picture."""
    clean, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    taken: list[StepTaken] = []
    own = OwnScheduler(SAMPLERS[name], 6, taken.append)
    scheduler = own.scheduler
    scheduler.set_timesteps(6)
    timestep = scheduler.timesteps[0]
    flow = name == "flow"
    sample = noise if flow else scheduler.add_noise(clean, noise, timestep.reshape(1))
    if name.startswith("euler"):
        sample = clean + scheduler.sigmas[0] * noise
        scheduler.scale_model_input(sample, timestep)
    scheduler.step(noise - clean if flow else noise, timestep, sample, return_dict=False)
    shown = own.estimate(taken[0])
    distance, noisy = ((one - clean).abs().mean() for one in (shown, sample))
    assert distance < 0.02 * noisy or (name == "lcm" and distance < 0.5 * noisy)


def test_step_times_wait_for_the_device_that_they_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current device is another one with `--device cuda:1`."""
    waited: list[Any] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for device in ("cuda:1", "cpu"):
        LoadedPipeline.synchronize(SimpleNamespace(device=torch.device(device)))  # type: ignore[arg-type]
    assert waited == [torch.device("cuda:1")]
