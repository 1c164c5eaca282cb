"""Stable Diffusion 1.5/2 and SDXL: a UNet over VAE latents, one or two CLIP text encoders."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from t2i_worker.pipelines.adapter import Conditions, PipelineAdapter


class StableDiffusionAdapter(PipelineAdapter):
    token_limits: Mapping[str, int | None] = {"tokenizer": None}

    @property
    def denoiser(self) -> Any:
        return self.pipeline.unet

    @property
    def latent_shape(self) -> tuple[int, ...]:
        factor = self.pipeline.vae_scale_factor
        return 1, self.denoiser.config.in_channels, self.height // factor, self.width // factor

    def encode_texts(self, prompt: str, negative_prompt: str, guidance_scale: float) -> Conditions:
        guided = guidance_scale > 1.0  # stock pipelines guide only above 1
        with torch.inference_mode():
            prompted, unprompted = self.pipeline.encode_prompt(prompt, self.device, 1, guided, negative_prompt or None)
        without = {"encoder_hidden_states": unprompted} if guided else None
        return Conditions({"encoder_hidden_states": prompted}, without, guidance_scale)

    def forward(self, latents: Tensor, timesteps: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        predicted: Tensor = self.denoiser(latents, timesteps, return_dict=False, **inputs)[0]
        return predicted

    def decode_latent(self, latent: Tensor) -> Tensor:
        vae = self.pipeline.vae
        pixels: Tensor = vae.decode(latent.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        return pixels


class StableDiffusionXLAdapter(StableDiffusionAdapter):
    """A VAE that overflows in fp16 (`force_upcast`) runs in fp32."""

    token_limits: Mapping[str, int | None] = {"tokenizer": None, "tokenizer_2": None}

    def __init__(self, pipeline: Any, width: int, height: int) -> None:
        super().__init__(pipeline, width, height)
        if self.dtype == torch.float16 and pipeline.vae.config.force_upcast:
            pipeline.vae.to(torch.float32)

    def encode_texts(self, prompt: str, negative_prompt: str, guidance_scale: float) -> Conditions:
        guided = guidance_scale > 1.0
        with torch.inference_mode():
            prompted, unprompted, pooled, pooled_unprompted = self.pipeline.encode_prompt(
                prompt,
                device=self.device,
                do_classifier_free_guidance=guided,
                negative_prompt=negative_prompt or None,
            )
        time_ids = self._time_ids(prompted.dtype)

        def row(states: Tensor, summary: Tensor) -> Mapping[str, Tensor]:
            return {"encoder_hidden_states": states, "text_embeds": summary, "time_ids": time_ids}

        without = row(unprompted, pooled_unprompted) if guided else None
        return Conditions(row(prompted, pooled), without, guidance_scale)

    def _time_ids(self, dtype: torch.dtype) -> Tensor:
        """Original size, crop and target size, with the defaults of the stock pipeline."""
        size = (self.height, self.width)
        return torch.tensor([[*size, 0, 0, *size]], dtype=dtype, device=self.device)

    def forward(self, latents: Tensor, timesteps: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        added = {"text_embeds": inputs["text_embeds"], "time_ids": inputs["time_ids"]}
        states = inputs["encoder_hidden_states"]
        predicted: Tensor = self.denoiser(latents, timesteps, states, added_cond_kwargs=added, return_dict=False)[0]
        return predicted
