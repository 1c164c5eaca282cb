"""Makers of tiny pipelines with a UNet: Stable Diffusion 1 and 2, SDXL and what came of them, the embedded model's."""

from typing import Any

import torch
from diffusers import (
    LatentConsistencyModelPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
)

from t2i_testing_kit.tiny_pipelines.text_encoders import WORDS, clip_encoder, clip_tokenizer
from t2i_testing_kit.tiny_pipelines.vaes import kl_vae
from t2i_worker.pipelines.scenes import ScenesPipeline

PLAYGROUND_LATENTS = {
    "latents_mean": [-1.6574, 1.886, -1.383, 2.5155],
    "latents_std": [8.4927, 5.9022, 6.5498, 5.2299],
    "scaling_factor": 0.5,
}


def tiny_unet(**options: Any) -> Any:
    small = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }
    return UNet2DConditionModel(**(small | options))


def _safety_checker(flags_all: bool) -> Any:
    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2},
        vision_config={**vision, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    checker = StableDiffusionSafetyChecker(config)
    threshold = -2.0 if flags_all else 2.0  # of a cosine
    with torch.no_grad():
        for name in ("concept_embeds", "special_care_embeds"):
            getattr(checker, f"{name}_weights").fill_(threshold)
    return checker


def stable_diffusion(scheduler: Any, *, checked: bool = False, flags_all: bool = False) -> Any:
    return StableDiffusionPipeline(
        vae=kl_vae(),
        unet=tiny_unet(cross_attention_dim=32, attention_head_dim=8),
        text_encoder=clip_encoder(CLIPTextModel),
        tokenizer=clip_tokenizer(),
        scheduler=scheduler,
        safety_checker=_safety_checker(flags_all) if checked else None,
        feature_extractor=CLIPImageProcessor(size=16, crop_size=16) if checked else None,
        requires_safety_checker=checked,
    )


def latent_consistency(scheduler: Any) -> Any:
    return LatentConsistencyModelPipeline(
        vae=kl_vae(),
        unet=tiny_unet(cross_attention_dim=32, attention_head_dim=8, time_cond_proj_dim=16),
        text_encoder=clip_encoder(CLIPTextModel),
        tokenizer=clip_tokenizer(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(scheduler: Any, *, vae: dict[str, Any] | None = None, **unet: Any) -> Any:
    return StableDiffusionXLPipeline(
        vae=kl_vae(**(vae or {})),
        unet=tiny_unet(
            cross_attention_dim=64,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 32,
            **unet,
        ),
        text_encoder=clip_encoder(CLIPTextModel),
        text_encoder_2=clip_encoder(CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        scheduler=scheduler,
    )


def scenes(scheduler: Any) -> Any:
    """Of the embedded model's class."""
    vocab = {word: index for index, word in enumerate(("[PAD]", "[UNK]", *WORDS))}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=37
    )
    return ScenesPipeline(
        unet=tiny_unet(
            sample_size=8,
            in_channels=27,
            out_channels=27,
            cross_attention_dim=32,
            attention_head_dim=4,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=32,
        ),
        scheduler=scheduler,
        text_encoder=BertModel(config, add_pooling_layer=False),
        tokenizer=PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]"),
        latent_scale=2.0,
        latent_shift=0.25,
        max_caption_tokens=12,
    )
