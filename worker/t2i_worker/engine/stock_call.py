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


@dataclass(slots=True)
class StockCall:
    """`denoise` answers the denoiser's calls, `on_step` hears of every step that is computed.

    `resumes` must be set if the call may get a start, before its first step.

    Encoded prompts are remembered in `encoded`, so that another call can show a preview without encoding them again.
    """

    pipeline: LoadedPipeline
    arguments: Mapping[str, Any]
    denoise: Callable[[Mapping[str, Any]], Any]
    on_step: Callable[[StepTaken], None] = lambda _: None
    decodes: Callable[[], None] = lambda: None
    keep: frozenset[int] = frozenset()
    encoded: list[Any] = field(default_factory=list)
    start: Start = field(default_factory=Start)
    resumes: bool = False
    own: OwnScheduler = field(init=False)
    swapped: bool = False

    def draw(self, seed: int) -> npt.NDArray[np.uint8]:
        """Make the images, uint8 [n, H, W, 3].

        Raises:
            JobInvalid: the scheduler makes no such schedule; the model's safety checker held an image back.
            NotFinite: the pixels are not finite. As uint8 they would be a black image.
        """
        stock = self.pipeline.stock
        num_steps = int(self.arguments["num_inference_steps"])
        template = for_resuming(stock.scheduler) if self.resumes or self.start.step else stock.scheduler
        self.swapped = template is not stock.scheduler
        self.own = OwnScheduler(template, num_steps, self.on_step, self.keep)
        self.own.start = self.start
        view = copy.copy(stock)
        view.__dict__["scheduler"] = self.own.scheduler
        for name, component in stock.components.items():
            if "guider" in name:
                view.__dict__[name] = copy.deepcopy(component)
        self._remember_prompts(view)
        try:
            with torch.inference_mode(), Denoiser.answered_by(self.denoise, self.decodes):
                result = view(generator=torch.Generator().manual_seed(seed), **self.arguments)
        finally:
            self.own.let_go()
            view.__dict__.clear()
        if any(getattr(result, "nsfw_content_detected", None) or ()):
            raise JobInvalid([Violation("prompt", "the model's safety checker held the image back")])
        return to_pixels(result.images if hasattr(result, "images") else result.image)

    def _remember_prompts(self, view: Any) -> None:
        encode = getattr(view, "encode_prompt", None)
        if encode is None:
            return

        calls = count()  # some pipelines call it once for each text, always in the same order

        def encode_once(*args: Any, **kwargs: Any) -> Any:
            number = next(calls)
            if number == len(self.encoded):
                self.encoded.append(encode(*args, **kwargs))
            return self.encoded[number]

        view.__dict__["encode_prompt"] = encode_once


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
