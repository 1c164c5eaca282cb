"""The embedded model of t2i_scenes: a pixel-space UNet with a BERT caption encoder and flow matching."""

import inspect
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image as PillowImage
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ScenesOutput:
    """Images [n, H, W, 3] from 0 to 1."""

    images: npt.NDArray[np.float32]


class GuidedStates(NamedTuple):
    """Of the captions; `guided`: those without the prompt come first."""

    states: Tensor
    guided: bool


class ScenesPipeline(DiffusionPipeline, StableDiffusionLoraLoaderMixin):  # type: ignore[misc]
    """`from_pretrained` loads the folder's components and constants into it, as for any diffusers pipeline."""

    def __init__(
        self,
        unet: Any,
        scheduler: Any,
        text_encoder: Any,
        tokenizer: Any,
        latent_patch_size: int = 3,
        latent_scale: float = 1.0,
        latent_shift: float = 0.0,
        max_caption_tokens: int = 28,
        default_num_inference_steps: int = 20,
        default_guidance_scale: float = 2.0,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer)
        self.register_to_config(
            latent_patch_size=latent_patch_size,
            latent_scale=latent_scale,
            latent_shift=latent_shift,
            max_caption_tokens=max_caption_tokens,
            default_num_inference_steps=default_num_inference_steps,
            default_guidance_scale=default_guidance_scale,
        )
        # Only the empty text is kept. With callers' texts, the time to encode one would reveal that it came before.
        self._nothing: Tensor | None = None

    @torch.no_grad()
    def __call__(
        self,
        prompt: str,
        height: int = 48,
        width: int = 48,
        num_inference_steps: int = 20,
        guidance_scale: float = 2.0,
        negative_prompt: str | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | None = None,
        output_type: str = "np",
    ) -> Any:
        """Draw images of one prompt, with the arguments of every diffusers pipeline. Guidance 1 means none."""
        states, guided = self._states(prompt, negative_prompt, guidance_scale, num_images_per_prompt)
        latents = self.prepare_latents(num_images_per_prompt, height, width, generator)
        self._make_schedule(num_inference_steps)
        latents = self._denoise(latents, self.scheduler.timesteps, states, guidance_scale if guided else None)
        return latents if output_type == "latent" else ScenesOutput(self._to_images(latents))

    def _states(self, prompt: str, negative_prompt: str | None, guidance_scale: float, count: int) -> "GuidedStates":
        guided = guidance_scale != 1.0
        states = self.encode_prompt(prompt, negative_prompt or "", guided).repeat_interleave(count, dim=0)
        return GuidedStates(states, guided)

    def _make_schedule(self, num_inference_steps: int) -> None:
        # Uniform noise levels from 1 down, as in training. Solvers that take none make nearly these on their own.
        sigmas = np.linspace(1.0, 1.0 / num_inference_steps, num_inference_steps)
        taken = "sigmas" in inspect.signature(self.scheduler.set_timesteps).parameters
        schedule = {"sigmas": sigmas} if taken else {"num_inference_steps": num_inference_steps}
        self.scheduler.set_timesteps(**schedule, device=next(self.unet.parameters()).device)
        self.scheduler.set_begin_index(0)

    def _denoise(self, latents: Tensor, timesteps: Tensor, states: Tensor, guidance_scale: float | None) -> Tensor:
        for timestep in timesteps:
            twice = latents if guidance_scale is None else torch.cat([latents, latents])
            predicted = self.unet(twice, timestep, states, class_labels=states[:, 0], return_dict=False)[0]
            if guidance_scale is not None:
                without, prompted = predicted.chunk(2)
                predicted = without + guidance_scale * (prompted - without)
            latents = self.scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        return latents

    def encode_prompt(self, prompt: str, negative_prompt: str, guided: bool) -> Tensor:
        """Hidden states [1, L, D]; with guidance [2, L, D], those without the prompt first."""
        prompted = self._encode(prompt)
        if not guided:
            return prompted
        if negative_prompt:
            return torch.cat([self._encode(negative_prompt), prompted])
        if self._nothing is None:
            self._nothing = self._encode("")
        return torch.cat([self._nothing, prompted])

    def prepare_latents(self, count: int, height: int, width: int, generator: torch.Generator | None) -> Tensor:
        patch = self.config.latent_patch_size
        shape = (count, self.unet.config.in_channels, height // patch, width // patch)
        weight = next(self.unet.parameters())  # the library's `device` and `dtype` walk through all modules
        noise: Tensor = randn_tensor(shape, generator=generator, device=weight.device, dtype=weight.dtype)
        return noise

    def _encode(self, text: str) -> Tensor:
        length = self.config.max_caption_tokens
        tokens = self.tokenizer(
            [text], padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(next(self.text_encoder.parameters()).device)
        hidden: Tensor = self.text_encoder(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state
        return hidden

    def _to_images(self, latents: Tensor) -> npt.NDArray[np.float32]:
        pixels = torch.nn.functional.pixel_shuffle(latents, self.config.latent_patch_size)
        shown = (pixels / self.config.latent_scale + self.config.latent_shift) / 2 + 0.5
        images: npt.NDArray[np.float32] = shown.clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy()
        return images


class ScenesImg2ImgPipeline(ScenesPipeline):
    """Begins with a noised image, as diffusers' image-to-image pipelines do."""

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self,
        prompt: str,
        image: PillowImage.Image,
        strength: float = 0.6,
        num_inference_steps: int = 20,
        guidance_scale: float = 2.0,
        negative_prompt: str | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | None = None,
        output_type: str = "np",
    ) -> Any:
        """The image gives the size. `strength` is the share of the steps that run."""
        count = num_images_per_prompt
        states, guided = self._states(prompt, negative_prompt, guidance_scale, count)
        self._make_schedule(num_inference_steps)
        timesteps = self.get_timesteps(num_inference_steps, strength)[0]
        noise = self.prepare_latents(count, image.height, image.width, generator)
        latents = self.scheduler.scale_noise(self._to_latents(image).to(noise).expand_as(noise), timesteps[:1], noise)
        latents = self._denoise(latents, timesteps, states, guidance_scale if guided else None)
        return latents if output_type == "latent" else ScenesOutput(self._to_images(latents))

    def get_timesteps(self, num_inference_steps: int, strength: float) -> tuple[Tensor, int]:
        """As in every image-to-image pipeline of diffusers."""
        first = num_inference_steps - min(int(num_inference_steps * strength), num_inference_steps)
        self.scheduler.set_begin_index(first * self.scheduler.order)
        return self.scheduler.timesteps[first * self.scheduler.order :], num_inference_steps - first

    def _to_latents(self, image: PillowImage.Image) -> Tensor:
        """The inverse of `_to_images`."""
        shown = torch.from_numpy(np.asarray(image.convert("RGB"), np.float32) / 255).permute(2, 0, 1)[None]
        pixels = ((shown - 0.5) * 2 - self.config.latent_shift) * self.config.latent_scale
        return torch.nn.functional.pixel_unshuffle(pixels, self.config.latent_patch_size)
