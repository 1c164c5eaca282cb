"""The embedded model of t2i_scenes: a pixel-space UNet with a BERT caption encoder and flow matching."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from t2i_worker.pipelines.adapter import Conditions, PipelineAdapter


class ScenesPipeline(DiffusionPipeline):  # type: ignore[misc]
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


class ScenesAdapter(PipelineAdapter):
    def __init__(self, pipeline: Any, width: int, height: int) -> None:
        self.token_limits: Mapping[str, int | None] = {"tokenizer": pipeline.config.max_caption_tokens}
        super().__init__(pipeline, width, height)
        # Only the empty text is cached. With callers' texts, the time to encode one would reveal that it came before.
        self._nothing = lru_cache(maxsize=1)(lambda: self._encode_text(""))

    @property
    def denoiser(self) -> Any:
        return self.pipeline.unet

    @property
    def latent_shape(self) -> tuple[int, ...]:
        patch = self.pipeline.config.latent_patch_size
        return 1, self.denoiser.config.in_channels, self.height // patch, self.width // patch

    def timesteps(self, num_inference_steps: int) -> Mapping[str, Any]:
        """Uniform noise levels from 1 down, as in training."""
        return {"sigmas": np.linspace(1.0, 1.0 / num_inference_steps, num_inference_steps).tolist()}

    def encode_texts(self, prompt: str, negative_prompt: str, guidance_scale: float) -> Conditions:
        prompted = self._encode_text(prompt)
        guided = guidance_scale != 1.0
        if not guided:
            return Conditions(prompted, None, guidance_scale)
        avoided = self._encode_text(negative_prompt) if negative_prompt else self._nothing()
        return Conditions(prompted, avoided, guidance_scale)

    def _encode_text(self, text: str) -> Mapping[str, Tensor]:
        length = self.pipeline.config.max_caption_tokens
        tokens = self.pipeline.tokenizer(
            [text], padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).to(self.device)
        with torch.inference_mode():
            hidden = self.pipeline.text_encoder(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state
        return {"encoder_hidden_states": hidden, "class_labels": hidden[:, 0]}

    def forward(self, latents: Tensor, timesteps: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        predicted: Tensor = self.denoiser(latents, timesteps, return_dict=False, **inputs)[0]
        return predicted

    def decode_latent(self, latent: Tensor) -> Tensor:
        config = self.pipeline.config
        pixels = torch.nn.functional.pixel_shuffle(latent, config.latent_patch_size)
        shown: Tensor = pixels / config.latent_scale + config.latent_shift
        return shown
