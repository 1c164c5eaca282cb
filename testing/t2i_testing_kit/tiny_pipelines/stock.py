"""The reference: the stock pipeline of the installed diffusers, called as its documentation says."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from PIL import Image as PillowImage
from torch import Tensor

from t2i_policy.image_size import ImageSize
from t2i_runtime.drawing import PLAIN, Drawing
from t2i_testing_kit.tiny_pipelines.families import FAMILIES, TinyFamily, in_any_size
from t2i_worker.input_images import NO_PICTURES, DecodedImages


@dataclass(frozen=True)
class TinyRequest:
    """What a client asks of a tiny model. None = what `FAMILIES` says for the family. `size` is width and height.

    `bent` are further coordinates of its level.
    """

    prompt: str = "a red circle left of the blue square"
    negative: str = ""
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    size: ImageSize | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    images: DecodedImages = NO_PICTURES
    drawing: Drawing = PLAIN
    bent: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StockRun:
    """`latents[i]` enters step i; the last one is final. `pixels` have values of 0 to 255."""

    latents: tuple[Tensor, ...]
    pixels: np.ndarray[Any, np.dtype[np.uint8]]

    @property
    def final(self) -> Tensor:
        return self.latents[-1]


def load_stock(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """Parts that were saved as null must be named to stock diffusers, such as SD3's third encoder."""
    index = json.loads((folder / "model_index.json").read_text())
    absent: dict[str, Any] = {name: None for name, kind in index.items() if kind == [None, None]}
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype=dtype, local_files_only=True, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return in_any_size(pipeline)


def sample_image(width: int, height: int) -> PillowImage.Image:
    """An image to edit: two colours that fade into each other."""
    ramp = np.linspace(0, 255, width * height).reshape(height, width)
    return PillowImage.fromarray(np.stack([ramp, 255 - ramp, ramp / 2], axis=-1).astype(np.uint8))


def call_arguments(pipeline: Any, family: TinyFamily, request: TinyRequest) -> dict[str, Any]:
    """Arguments of the stock `__call__` for a request; those that the pipeline does not know are left out."""
    guidance = family.guidance if request.guidance is None else request.guidance
    wanted: dict[str, Any] = {
        "prompt": request.prompt,
        "negative_prompt": request.negative or None,
        "num_inference_steps": request.steps or family.steps,
        family.guidance_argument: guidance,
        "width": family.width if request.size is None else request.size.width,
        "height": family.height if request.size is None else request.size.height,
        **family.extra,
        **request.extra,
    }
    if family.takes_image:
        wanted["image"] = sample_image(family.width, family.height)
    known = inspect.signature(type(pipeline).__call__).parameters
    return {name: value for name, value in wanted.items() if name in known and value is not None}


def stock_run(pipeline: Any, name: str, request: TinyRequest) -> StockRun:
    """Run the stock pipeline and note what its noise scheduler steps over."""
    arguments = call_arguments(pipeline, FAMILIES[name], request)
    entering: list[Tensor] = []
    last: list[Tensor] = []
    step = pipeline.scheduler.step

    def noted(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        entering.append(sample.clone())
        moved = step(model_output, timestep, sample, *args, **kwargs)
        last[:] = [moved[0]]
        return moved

    noted.__signature__ = inspect.signature(step)  # type: ignore[attr-defined]  # pipelines look for `generator` in it
    pipeline.scheduler.step = noted
    try:
        with torch.inference_mode():
            result = pipeline(generator=torch.Generator().manual_seed(request.seed), output_type="np", **arguments)
    finally:
        del pipeline.scheduler.step
    images = result.images if hasattr(result, "images") else result.image
    return StockRun((*entering, last[0]), np.round(255 * np.asarray(images[0])).astype(np.uint8))
