"""One call of a stock pipeline, on a view of its own: what the engine hooks into, and nothing of who waits for it.

The view is a shallow copy of the pipeline. It shares all models, and has its own noise scheduler and guiders, because
these hold the state of a run. Pipelines write their own attributes during a call; the view takes those too.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from t2i_runtime.errors import Violation
from t2i_worker.engine.noise_scheduler import OwnScheduler, Start, StepTaken, for_resuming
from t2i_worker.errors import JobInvalid, NotFinite
from t2i_worker.pipelines import Denoiser, LoadedPipeline
from t2i_worker.pipelines.prompt_cuts import CutNotes

ENCODERS = ("encode_prompt", "prepare_ip_adapter_image_embeds")  # methods of pipelines


@dataclass(slots=True)
class StockCall:
    """`denoise` answers the denoiser's calls, `on_step` hears of every step that is computed.

    `stock` is the pipeline or a sibling of it. `on_schedule` hears how many steps run, where that is not all.

    `resumes` must be set if the call may get a start, before its first step.

    `vae` decodes in place of the pipeline's own.

    Encoded prompts and images are remembered in `encoded`, so that another call can show a preview without encoding
    them again.
    """

    pipeline: LoadedPipeline
    arguments: Mapping[str, Any]
    denoise: Callable[[Mapping[str, Any]], Any]
    on_step: Callable[[StepTaken], None] = lambda _: None
    decodes: Callable[[], None] = lambda: None
    on_schedule: Callable[[int], None] = lambda _: None
    keep: frozenset[int] = frozenset()
    encoded: list[Any] = field(default_factory=list)
    start: Start = field(default_factory=Start)
    resumes: bool = False
    vae: Any = None
    scheduler: Any = None  # a template; None: the pipeline's
    notes: CutNotes | None = None
    stock: Any = None  # None: the pipeline's
    own: OwnScheduler = field(init=False)
    swapped: bool = False

    def draw(self, seed: int) -> npt.NDArray[np.uint8]:
        """Make the images, uint8 [n, H, W, 3].

        Raises:
            JobInvalid: the scheduler makes no such schedule; the model's safety checker held an image back.
            NotFinite: the pixels are not finite. As uint8 they would be a black image.
        """
        stock = self.pipeline.stock if self.stock is None else self.stock
        num_steps = int(self.arguments["num_inference_steps"])
        chosen = stock.scheduler if self.scheduler is None else self.scheduler
        template = for_resuming(chosen) if self.resumes or self.start.step else chosen
        self.swapped = template is not chosen
        field = "level.num_inference_steps" if chosen is stock.scheduler else "drawing.sampler"
        generator = torch.Generator().manual_seed(seed)
        self.own = OwnScheduler(template, num_steps, self.on_step, self.keep, field, generator)
        self.own.start = self.start
        view = copy.copy(stock)
        view.__dict__["scheduler"] = self.own.scheduler
        if self.vae is not None:
            view.__dict__["vae"] = self.vae
        for name, component in stock.components.items():
            if "guider" in name:
                view.__dict__[name] = copy.deepcopy(component)
            elif self.notes is not None and name.startswith(("tokenizer", "processor")):
                view.__dict__[name] = self.notes.noting(name, component)
        self._remember_encoded(view)
        self._hear_of_schedule(view)
        try:
            chance = torch.Generator().manual_seed(seed)  # apart: the pipeline's own is drawn from as in stock
            with torch.inference_mode(), Denoiser.answered_by(self.denoise, self.decodes, chance):
                result = view(generator=generator, **self.arguments)
        finally:
            self.own.let_go()
            view.__dict__.clear()
        if any(getattr(result, "nsfw_content_detected", None) or ()):
            raise JobInvalid([Violation("prompt", "the model's safety checker held the image back")])
        return to_pixels(result.images if hasattr(result, "images") else result.image)

    def _remember_encoded(self, view: Any) -> None:
        calls = count()  # some pipelines call one of them several times; a call makes them always in the same order

        def once(encode: Callable[..., Any]) -> Callable[..., Any]:
            def encode_once(*args: Any, **kwargs: Any) -> Any:
                number = next(calls)
                if number == len(self.encoded):
                    self.encoded.append(encode(*args, **kwargs))
                return self.encoded[number]

            return encode_once

        for name in ENCODERS:
            if (encode := getattr(view, name, None)) is not None:
                view.__dict__[name] = once(encode)

    def _hear_of_schedule(self, view: Any) -> None:
        """Image-to-image pipelines leave out the first steps, as many as the strength says.

        Each has a rule of its own for what it leaves of a small strength.
        """
        choose = getattr(view, "get_timesteps", None)
        if choose is None:
            return

        def chosen(*args: Any, **kwargs: Any) -> Any:
            timesteps, num_steps = found = choose(*args, **kwargs)
            if num_steps < 1:
                whole, place = self.arguments["num_inference_steps"], "drawing.images.strength"
                raise JobInvalid([Violation(place, f"leaves none of {whole} steps; raise it, or ask for more steps")])
            self.own.run_only(len(timesteps), num_steps)
            self.on_schedule(num_steps)
            return found

        view.__dict__["get_timesteps"] = chosen


def to_pixels(images: Any) -> npt.NDArray[np.uint8]:
    """What a pipeline returns for `output_type="np"`, floats 0..1 or Pillow images, as uint8 [n, H, W, 3]."""
    if isinstance(images, list):
        images = np.stack([np.asarray(image) for image in images])
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    if not np.isfinite(images).all():
        raise NotFinite("the decoder produced pixels that are not finite for this request")
    pixels: npt.NDArray[np.uint8] = (images * 255).round().astype(np.uint8)
    return pixels
