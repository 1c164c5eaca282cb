"""The plain sampling loop: diffusers components and one batch. Engines and quality tables are compared with it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from torch import Tensor
from transformers import BertModel, PreTrainedTokenizerFast

from t2i_scenes.model_folder import ModelConstants, model_path


@dataclass(frozen=True, slots=True)
class SampledImages:
    """Images uint8 [B,48,48,3], and the kept latents [B,C,h,w] by the step that they enter."""

    images: npt.NDArray[np.uint8]
    latents: dict[int, Tensor]


class Resume(NamedTuple):
    """Skip `step` steps and start from latents [B,C,h,w] that enter this step."""

    step: int
    latents: Tensor


class EncodedCaptions(NamedTuple):
    """Hidden states [B,L,D] and [CLS] [B,D]."""

    hidden: Tensor
    cls: Tensor


@dataclass(frozen=True, slots=True)
class ScenesModel:
    """The loaded model folder, fp32 on the CPU."""

    constants: ModelConstants
    tokenizer: PreTrainedTokenizerFast
    text_encoder: BertModel
    unet: UNet2DConditionModel
    scheduler: FlowMatchEulerDiscreteScheduler

    @classmethod
    def load(cls, folder: Path | None = None) -> Self:
        """Load `folder`, by default that of this package."""
        folder = folder or model_path()
        return cls(
            constants=ModelConstants.read(folder),
            tokenizer=PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
            text_encoder=BertModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval(),
            unet=UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler.from_pretrained(folder / "scheduler"),
        )

    def draw(
        self,
        captions: Sequence[str],
        seeds: Sequence[int],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        resume: Resume | None = None,
        keep_before: Collection[int] = (),
    ) -> SampledImages:
        """Draw one image a caption. With `resume` the seeds are not used.

        Latents that enter the steps of `keep_before` are returned; step N stands for the final ones.
        """
        steps = num_inference_steps or self.constants.default_num_inference_steps
        guidance = self.constants.default_guidance_scale if guidance_scale is None else guidance_scale
        first, latents = resume or Resume(0, self.noise(seeds))
        kept: dict[int, Tensor] = {}
        with torch.inference_mode():
            sigmas = self.sigmas(steps)
            conditions = self.encode([*captions, *[""] * len(captions)])
            for step in range(first, steps):
                if step in keep_before:
                    kept[step] = latents.clone()
                velocity = self.velocity(latents, float(sigmas[step]), conditions, guidance)
                latents = latents + (sigmas[step + 1] - sigmas[step]) * velocity
        if steps in keep_before:
            kept[steps] = latents
        return SampledImages(self.to_images(latents), kept)

    def sigmas(self, num_inference_steps: int) -> Tensor:
        """Noise levels from 1 down to 0, [N+1]."""
        self.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / num_inference_steps, num_inference_steps).tolist())
        sigmas: Tensor = self.scheduler.sigmas
        return sigmas

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Start latents. Each has its own seed, so that an image does not depend on its batch."""
        shape = (self.unet.config.in_channels, self.unet.config.sample_size, self.unet.config.sample_size)
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

    def with_own_noise(self, latents: Tensor, step: int, seeds: Sequence[int], theirs: Sequence[int]) -> Tensor:
        """Replace the noise of the seeds `theirs` in latents [B,C,h,w] that enter `step` by that of `seeds`."""
        sigma = float(self.sigmas(self.constants.default_num_inference_steps)[step])
        return latents + sigma * (self.noise(seeds) - self.noise(theirs))

    def noised(self, finals: Tensor, step: int, seeds: Sequence[int]) -> Tensor:
        """Noise final latents [B,C,h,w] to the level at which `step` is entered, each by its own seed."""
        self.sigmas(self.constants.default_num_inference_steps)
        timestep = self.scheduler.timesteps[step].expand(len(finals))
        noised: Tensor = self.scheduler.scale_noise(finals, timestep, self.noise(seeds))
        return noised

    def encode(self, captions: Sequence[str]) -> EncodedCaptions:
        length = self.constants.max_caption_tokens
        tokens = self.tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        hidden = self.text_encoder(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state
        return EncodedCaptions(hidden, hidden[:, 0])

    def velocity(self, latents: Tensor, sigma: float, conditions: EncodedCaptions, guidance: float) -> Tensor:
        """The guided estimate of noise - image. `conditions` hold the captions, then as many empty captions."""
        count = len(latents)
        if guidance == 1.0:  # without guidance the empty captions are not needed
            hidden, cls = conditions.hidden[:count], conditions.cls[:count]
            plain: Tensor = self.unet(latents, torch.full((count,), sigma * 1000), hidden, class_labels=cls).sample
            return plain
        timesteps = torch.full((2 * count,), sigma * 1000)
        twice = torch.cat([latents, latents])
        both = self.unet(twice, timesteps, conditions.hidden, class_labels=conditions.cls).sample
        with_caption, without = both.chunk(2)
        guided: Tensor = without + guidance * (with_caption - without)
        return guided

    def to_images(self, latents: Tensor) -> npt.NDArray[np.uint8]:
        """Latents [B,C,h,w] -> uint8 [B,48,48,3]."""
        pixels = torch.nn.functional.pixel_shuffle(latents, self.constants.latent_patch_size)
        pixels = pixels / self.constants.latent_scale + self.constants.latent_shift
        scaled = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        images: npt.NDArray[np.uint8] = scaled.permute(0, 2, 3, 1).contiguous().numpy()
        return images
