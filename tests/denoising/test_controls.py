"""A ControlNet of the pool: a request with an image for it draws what diffusers' own class for that draws."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from t2i_testing_kit.tiny_pipelines.controls import save_control
from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_testing_kit.tiny_pipelines.in_engine import TinyEngine
from t2i_testing_kit.tiny_pipelines.limits import MIXED_BOUND
from t2i_testing_kit.tiny_pipelines.stock import StockRun, TinyRequest, load_stock, sample_image, stock_run
from t2i_worker.engine.warm_up import try_components
from t2i_worker.errors import ModelUnsupported
from t2i_worker.input_images import ComponentPicture, DecodedImages
from t2i_worker.pipelines.controls import load_control

EDGES = sample_image(48, 32)
#: The class that diffusers' documentation names, and what it calls the image.
KINDS: Mapping[str, tuple[Any, str]] = {
    "sd15": (diffusers.StableDiffusionControlNetPipeline, "image"),
    "sdxl": (diffusers.StableDiffusionXLControlNetPipeline, "image"),
    "sd3": (diffusers.StableDiffusion3ControlNetPipeline, "control_image"),
    "flux-dev": (diffusers.FluxControlNetPipeline, "control_image"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controls")
    for name in KINDS:
        save_family(name, folder / name)
        save_control(folder / name, folder / f"{name}-edges")
    return folder


def controlled(seed: int, scale: float) -> TinyRequest:
    return TinyRequest(seed=seed, images=DecodedImages(control=ComponentPicture("edges", EDGES, scale)))


def stock_controlled(made: Path, name: str, seed: int, scale: float) -> StockRun:
    kind, argument = KINDS[name]
    model = getattr(diffusers, _class_of(name)).from_pretrained(made / f"{name}-edges")
    stock = kind(**load_stock(made / name).components, controlnet=model, **_options(name))
    stock.set_progress_bar_config(disable=True)
    torch.manual_seed(seed)  # SD3's draws its control latents from there
    extra = {argument: EDGES, "controlnet_conditioning_scale": scale}
    return stock_run(stock, name, TinyRequest(seed=seed, extra=extra))


def _class_of(name: str) -> str:
    return {"sd3": "SD3ControlNetModel", "flux-dev": "FluxControlNetModel"}.get(name, "ControlNetModel")


def _options(name: str) -> dict[str, Any]:
    return {"requires_safety_checker": False} if name == "sd15" else {}


@pytest.mark.parametrize("name", KINDS)
def test_drawn_as_diffusers_draws_with_it(name: str, made: Path) -> None:
    """To the last bit alone, and among others: with and without a ControlNet, at another scale."""
    engine = TinyEngine(name, made / name)
    load_control(engine.pipeline, "edges", made / f"{name}-edges")
    stock = stock_controlled(made, name, 1, 0.7)
    (alone,) = engine.draw([controlled(1, 0.7)])
    assert alone.error is None
    assert np.array_equal(alone.pixels, stock.pixels)
    (plain,) = engine.draw([TinyRequest(seed=1)])
    assert np.array_equal(plain.pixels, stock_run(load_stock(made / name), name, TinyRequest(seed=1)).pixels)
    assert not np.array_equal(plain.pixels, alone.pixels)
    runs = engine.draw([controlled(1, 0.7), TinyRequest(seed=1), controlled(2, 1.0)])
    assert [run.error for run in runs] == [None] * 3
    assert engine.batch_sizes[2] == engine.batch_sizes[1], "those with a ControlNet meet"
    for run, final in zip(runs, (stock.final, plain.final), strict=False):
        assert float((run.final - final).abs().max() / final.std()) <= MIXED_BOUND


def test_control_that_cannot_serve_is_named_at_the_start(made: Path) -> None:
    """One of another model loads, and fails at its first step. A model without a ControlNet class is told so."""
    engine = TinyEngine("sd15", made / "sd15")
    with pytest.raises(ModelUnsupported, match=r"model\.components\['unet'\].*not a ControlNet of diffusers"):
        load_control(engine.pipeline, "unet", made / "sd15" / "unet")
    load_control(engine.pipeline, "edges", made / "sdxl-edges")
    with pytest.raises(ModelUnsupported, match=r"model\.components\['edges'\].*draws no image"):
        try_components(engine.pipeline, 5.0, lambda _: None)
