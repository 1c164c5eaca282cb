"""Stable Diffusion 3 and FLUX: diffusion transformers with flow matching."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline, calculate_shift
from torch import Tensor

from t2i_worker.pipelines.adapter import Conditions, PipelineAdapter


def _dynamic_shift(scheduler: Any, num_tokens: int) -> Mapping[str, float]:
    """The argument `mu` that schedulers with dynamic shifting need; empty for others."""
    config = scheduler.config
    if not config.get("use_dynamic_shifting", False):
        return {}
    # The stock pipelines take these defaults where a scheduler's configuration lacks a value.
    names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    known = [config.get(name, default) for name, default in zip(names, (256, 4096, 0.5, 1.15), strict=True)]
    return {"mu": calculate_shift(num_tokens, *known)}


class StableDiffusion3Adapter(PipelineAdapter):
    size_multiple = 16
    token_limits: Mapping[str, int | None] = {"tokenizer": None, "tokenizer_2": None, "tokenizer_3": 256}

    @property
    def denoiser(self) -> Any:
        return self.pipeline.transformer

    @property
    def latent_shape(self) -> tuple[int, ...]:
        factor = self.pipeline.vae_scale_factor
        return 1, self.denoiser.config.in_channels, self.height // factor, self.width // factor

    def timesteps(self, num_inference_steps: int) -> Mapping[str, Any]:
        _, _, height, width = self.latent_shape
        patch = self.denoiser.config.patch_size
        tokens = (height // patch) * (width // patch)
        return {"num_inference_steps": num_inference_steps, **_dynamic_shift(self.scheduler, tokens)}

    def encode_texts(self, prompt: str, negative_prompt: str, guidance_scale: float) -> Conditions:
        guided = guidance_scale > 1.0
        with torch.inference_mode():
            prompted, unprompted, pooled, pooled_unprompted = self.pipeline.encode_prompt(
                prompt,
                None,
                None,
                device=self.device,
                do_classifier_free_guidance=guided,
                negative_prompt=negative_prompt or None,
            )
        without = _with_summary(unprompted, pooled_unprompted) if guided else None
        return Conditions(_with_summary(prompted, pooled), without, guidance_scale)

    def forward(self, latents: Tensor, timesteps: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        predicted: Tensor = self.denoiser(hidden_states=latents, timestep=timesteps, return_dict=False, **inputs)[0]
        return predicted

    def decode_latent(self, latent: Tensor) -> Tensor:
        return _decode_shifted(self.pipeline.vae, latent)


class FluxAdapter(PipelineAdapter):
    """Guidance is an input of the distilled model, not a second forward pass. It takes no negative prompts."""

    size_multiple = 16
    token_limits: Mapping[str, int | None] = {"tokenizer": None, "tokenizer_2": 512}

    @property
    def denoiser(self) -> Any:
        return self.pipeline.transformer

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Packed as [1, tokens, channels]; a token holds 2x2 latent pixels."""
        factor = 2 * self.pipeline.vae_scale_factor
        return 1, (self.height // factor) * (self.width // factor), self.denoiser.config.in_channels

    def timesteps(self, num_inference_steps: int) -> Mapping[str, Any]:
        shift = _dynamic_shift(self.scheduler, self.latent_shape[1])
        if self.scheduler.config.get("use_flow_sigmas", False):
            return {"num_inference_steps": num_inference_steps, **shift}  # the scheduler chooses its noise levels
        return {"sigmas": np.linspace(1.0, 1.0 / num_inference_steps, num_inference_steps), **shift}

    def initial_latent(self, seed: int) -> Tensor:
        """Draw the noise in the VAE's layout, then pack it, as the stock pipeline does."""
        factor = 2 * self.pipeline.vae_scale_factor
        channels = self.denoiser.config.in_channels // 4
        height, width = 2 * (self.height // factor), 2 * (self.width // factor)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn((1, channels, height, width), generator=generator, dtype=self.dtype)
        packed: Tensor = FluxPipeline._pack_latents(noise, 1, channels, height, width)
        return packed.to(self.device)

    def encode_texts(self, prompt: str, negative_prompt: str, guidance_scale: float) -> Conditions:
        del negative_prompt
        with torch.inference_mode():
            states, pooled, _ = self.pipeline.encode_prompt(prompt, None, device=self.device)
        inputs = dict(_with_summary(states, pooled))
        if self.denoiser.config.guidance_embeds:
            inputs["guidance"] = torch.full((1,), guidance_scale, device=self.device, dtype=torch.float32)
        return Conditions(inputs, None, guidance_scale)

    def forward(self, latents: Tensor, timesteps: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        factor = 2 * self.pipeline.vae_scale_factor
        image_ids = FluxPipeline._prepare_latent_image_ids(
            1, self.height // factor, self.width // factor, self.device, self.dtype
        )
        text_ids = torch.zeros(inputs["encoder_hidden_states"].shape[1], 3, device=self.device, dtype=self.dtype)
        predicted: Tensor = self.denoiser(
            hidden_states=latents,
            timestep=timesteps.to(latents.dtype) / 1000,  # FLUX takes noise levels from 0 to 1
            img_ids=image_ids,
            txt_ids=text_ids,
            return_dict=False,
            **inputs,
        )[0]
        return predicted

    def decode_latent(self, latent: Tensor) -> Tensor:
        factor = self.pipeline.vae_scale_factor
        return _decode_shifted(self.pipeline.vae, FluxPipeline._unpack_latents(latent, self.height, self.width, factor))


def _with_summary(states: Tensor, pooled: Tensor) -> Mapping[str, Tensor]:
    return {"encoder_hidden_states": states, "pooled_projections": pooled}


def _decode_shifted(vae: Any, latent: Tensor) -> Tensor:
    scaled = latent.to(vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
    pixels: Tensor = vae.decode(scaled, return_dict=False)[0]
    return pixels
