"""A PipelineAdapter offers a loaded diffusers pipeline as the parts that the engine needs, for one image size.

The engine runs single steps, so it does not call the pipeline as a whole. An adapter encodes texts, makes schedules
and start noise, runs one guided forward pass for requests at any mix of timesteps, and decodes.
The result for a request equals the stock pipeline's (tests/denoising holds it to 1e-4), whoever shares its batch.
"""

import copy
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from t2i_runtime.errors import Violation
from t2i_worker.errors import JobInvalid, NotFinite
from t2i_worker.jobs import PromptCut
from t2i_worker.pipelines.prompt_cuts import TextLimit, limit_of
from t2i_worker.pipelines.schedules import NoiseSchedule, NoiseSource, servable

log = logging.getLogger(__name__)
PROBED_STEPS = 4  # length of the schedule that shows whether a sampler draws noise


@dataclass(frozen=True, slots=True)
class Conditions:
    """The denoiser's keyword arguments for one request, [1, ...] each: with the prompt and, if guided, without it."""

    prompted: Mapping[str, Tensor]
    unprompted: Mapping[str, Tensor] | None
    guidance_scale: float


@dataclass(frozen=True, slots=True)
class StackedConditions:
    """Conditions of B requests as one batch: the B prompted rows, then the unprompted rows of the G guided requests.

    `guided` [G] holds the indexes of guided requests, `scale` [G] their guidance scales.
    """

    inputs: Mapping[str, Tensor]
    guided: Tensor
    scale: Tensor


def stack_conditions(conditions: Sequence[Conditions]) -> StackedConditions:
    """All conditions must come from one adapter."""
    guided = [index for index, one in enumerate(conditions) if one.unprompted is not None]
    rows = [one.prompted for one in conditions]
    rows += [unprompted for one in conditions if (unprompted := one.unprompted) is not None]
    inputs = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    device = next(iter(inputs.values())).device
    scale = torch.tensor([conditions[index].guidance_scale for index in guided], device=device)
    return StackedConditions(inputs, torch.tensor(guided, dtype=torch.long, device=device), scale)


class PipelineAdapter(ABC):
    """All requests of a worker have one size: `width` x `height` pixels."""

    #: Width and height must be multiples of this many pixels.
    size_multiple = 8
    #: For each tokenizer of the pipeline the most tokens that its encoder reads; None = the tokenizer's own limit.
    token_limits: Mapping[str, int | None] = {}

    def __init__(self, pipeline: Any, width: int, height: int) -> None:
        self.pipeline = pipeline
        self.width = width
        self.height = height
        self.scheduler = servable(pipeline.scheduler)
        self.device: torch.device = pipeline.device
        self.dtype: torch.dtype = self.denoiser.dtype
        self._text_limits = tuple(self._make_limits())
        self.decode_fallbacks = 0  # decodes that were not finite and were repeated in fp32
        self._tokenizing = threading.Lock()
        self._upcasting = threading.Lock()

    @property
    @abstractmethod
    def denoiser(self) -> Any:
        """The module that runs every step."""

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one request's latent, batch dimension of 1 included."""

    def encode(self, prompt: str, negative_prompt: str, guidance_scale: float) -> Conditions:
        """Encode the texts. Any thread may call it; calls wait for each other.

        A fast tokenizer keeps truncation and padding as state, so two calls at once would mix them up.
        """
        with self._tokenizing:
            return self.encode_texts(prompt, negative_prompt, guidance_scale)

    @abstractmethod
    def encode_texts(self, prompt: str, negative_prompt: str, guidance_scale: float) -> Conditions:
        """`encode` calls this, never twice at once."""

    def cuts(self, prompt: str, negative_prompt: str) -> tuple[PromptCut, ...]:
        """Where encoders stop reading, for those that do not read the whole text. Any thread may call it."""
        texts = ((prompt, False), (negative_prompt, True))
        found = [limit.cut(text, negative) for text, negative in texts if text for limit in self._text_limits]
        return tuple(cut for cut in found if cut is not None)

    def _make_limits(self) -> Iterator[TextLimit]:
        for name, most in self.token_limits.items():
            encoder = name.replace("tokenizer", "text_encoder")
            limit = limit_of(encoder, getattr(self.pipeline, name, None), most)
            if limit is not None:
                yield limit

    @abstractmethod
    def forward(self, latents: Tensor, timesteps: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        """One call of the denoiser: latents [R, ...], timesteps [R]."""

    @abstractmethod
    def decode_latent(self, latent: Tensor) -> Tensor:
        """Latent [1, ...] to pixels [1, 3, H, W] in -1..1."""

    def timesteps(self, num_inference_steps: int) -> Mapping[str, Any]:
        """The arguments for the scheduler's `set_timesteps`."""
        return {"num_inference_steps": num_inference_steps}

    def schedule(self, num_inference_steps: int, begin: int, seed: int) -> NoiseSchedule:
        """Make a new schedule for one request.

        Raises:
            JobInvalid: the noise scheduler makes no schedule of this many steps.
        """
        noise = NoiseSource(seed, self.latent_shape, self.dtype)
        try:
            return NoiseSchedule(self.scheduler, self.timesteps(num_inference_steps), begin, noise)
        except Exception as error:  # each scheduler says no in its own way
            sentence = f"{type(self.scheduler).__name__} makes no schedule of {num_inference_steps} steps"
            raise JobInvalid([Violation("level.num_inference_steps", sentence)]) from error

    @cached_property
    def draws_noise(self) -> bool:
        """Whether the sampler adds new noise at each step, so that a latent holds more than the start noise."""
        nothing = torch.zeros(1, 4, 2, 2)
        moved = [self.schedule(PROBED_STEPS, 0, seed).advance(nothing, nothing, 0) for seed in (0, 1)]
        return not torch.equal(*moved)

    def initial_latent(self, seed: int) -> Tensor:
        """Unit noise [1, ...] that depends on the seed alone: it is drawn on the CPU, so every device gets the same."""
        noise = torch.randn(self.latent_shape, generator=torch.Generator().manual_seed(seed), dtype=self.dtype)
        return noise.to(self.device)

    def predict(self, latents: Tensor, timesteps: Tensor, conditions: StackedConditions) -> Tensor:
        """The guided prediction [B, ...] for latents [B, ...] at timesteps [B], in one forward pass.

        Guided requests have two rows in it: out = unprompted + scale x (prompted - unprompted) (Ho, Salimans 2022).
        """
        count, guided = len(latents), conditions.guided
        if not len(guided):
            return self.forward(latents, timesteps, conditions.inputs)
        # Only guided requests have a second row, so requests without guidance cost half.
        out = self.forward(
            torch.cat([latents, latents[guided]]), torch.cat([timesteps, timesteps[guided]]), conditions.inputs
        )
        prompted, unprompted = out[:count], out[count:]
        scale = conditions.scale.view(-1, *[1] * (out.dim() - 1))
        # `scale` is fp32, so the product is rounded once, like the stock pipelines' product with a Python number.
        led = unprompted + (scale * (prompted[guided] - unprompted)).to(out.dtype)
        if len(guided) == count:  # the usual case needs no copy
            return led
        mixed = prompted.clone()
        mixed[guided] = led
        return mixed

    def decode(self, latent: Tensor) -> npt.NDArray[np.uint8]:
        """Latent [1, ...] to uint8 [H, W, 3].

        Raises:
            NotFinite: the pixels are not finite, even in fp32. As uint8 they would be a black image.
        """
        vae = getattr(self.pipeline, "vae", None)
        decoded = self.decode_latent(latent).float()
        if not _is_finite(decoded):
            decoded = self._decode_in_fp32(latent, vae)
        pixels = (decoded + 1) * 127.5
        image: npt.NDArray[np.uint8] = pixels.round().clamp(0, 255).to(torch.uint8)[0].permute(1, 2, 0).cpu().numpy()
        return np.ascontiguousarray(image)

    def _decode_in_fp32(self, latent: Tensor, used: Any) -> Tensor:
        """Repeat the decode in fp32; if that helps, the VAE stays in fp32. `used` is the VAE that overflowed.

        The fp32 VAE is a copy that replaces the other in one assignment. So decodes in other threads end with the
        VAE that they began with.
        """
        sentence = "the decoder produced pixels that are not finite for this request"
        with self._upcasting:
            mine = used is not None and self.pipeline.vae is used  # no other thread has replaced it meanwhile
            if used is None or (mine and used.dtype == torch.float32):
                raise NotFinite(sentence)
            self.decode_fallbacks += 1
            if mine:
                self.pipeline.vae = copy.deepcopy(used).to(torch.float32)
            decoded = self.decode_latent(latent).float()
            if _is_finite(decoded):
                log.warning("the VAE overflows in %s; it runs in fp32 from now on", used.dtype)
                return decoded
            if mine:
                self.pipeline.vae = used
        raise NotFinite(sentence)


def _is_finite(values: Tensor) -> bool:
    return bool(torch.isfinite(values).all())
