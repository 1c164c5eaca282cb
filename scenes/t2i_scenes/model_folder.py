"""The model folder: its content, and how to run the model in it.

    model_index.json   component classes and the constants of ModelConstants
    tokenizer/         PreTrainedTokenizerFast        text_encoder/  BertModel
    unet/              UNet2DConditionModel           scheduler/     FlowMatchEulerDiscreteScheduler
    embedder/          tokenizer.json + model.onnx: input_ids, attention_mask int64 [B,L] -> sentence_embedding [B,D],
                       mean-centred and L2-normalised, so the dot product of two captions is their similarity

Weights are stored in fp16; load the components with their stock `from_pretrained` and run them in fp32.

Text: tokenize with padding="max_length", truncation=True, max_length=max_caption_tokens. Padding is needed, because the
UNet's attention is not masked, and a caption's states must not depend on its batch. The empty caption is unconditional.

    h = text_encoder(input_ids, attention_mask).last_hidden_state [B,L,D]
    encoder_hidden_states = h,  class_labels = h[:, 0]

Latents: float32 [B,27,16,16], at first unit normal noise. The schedule of N steps is
scheduler.set_timesteps(sigmas=linspace(1, 1/N, N)); `shift` is fixed in its configuration. Step i runs at sigma[i]:

    v = unet(latents, sigma[i] * 1000, h, class_labels=h[:, 0]).sample     estimates noise - image
    v = v_empty + w * (v_caption - v_empty)                                with guidance w
    latents += (sigma[i+1] - sigma[i]) * v                                 as scheduler.step does

To skip K steps, take the latents that another run had before its step K. Continue at i = K.

Image: pixels = pixel_shuffle(latents, latent_patch_size) / latent_scale + latent_shift in -1..1;
uint8 = clip(round((pixels + 1) * 127.5), 0, 255), [B,48,48,3].
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

INDEX_NAME = "model_index.json"


@dataclass(frozen=True, slots=True)
class ModelConstants:
    latent_patch_size: int
    latent_scale: float
    latent_shift: float
    max_caption_tokens: int
    default_num_inference_steps: int
    default_guidance_scale: float

    @classmethod
    def read(cls, folder: Path) -> Self:
        index = json.loads((folder / INDEX_NAME).read_text())
        return cls(**{name: index[name] for name in cls.__slots__})

    def write(self, folder: Path, diffusers_version: str) -> None:
        index = {
            "_class_name": "ScenesPipeline",
            "_diffusers_version": diffusers_version,
            "unet": ["diffusers", "UNet2DConditionModel"],
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "BertModel"],
            "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
            **asdict(self),
        }
        (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n")


def model_path() -> Path:
    """The folder of the trained model in this package."""
    return Path(__file__).parent / "model"


def distilled_path() -> Path:
    """The folder of the model of few unguided steps. Its embedder is that of the trained model."""
    return Path(__file__).parent / "distilled"


def embedder_path() -> Path:
    """The folder of the similarity embedder (ONNX) in this package."""
    return model_path() / "embedder"
