"""Full-size pipelines with random weights, made on the device: nothing is downloaded, and little host memory is used.

Their images are noise; their speed is that of the real ones. Tokenizers are byte-level ones, whose texts are about
three times as long where a model does not pad them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from bench.gpu import published as sizes
from t2i_testing_kit.tiny_pipelines import text_encoders as text
from t2i_testing_kit.tiny_pipelines.families import FAMILIES, SEED

CLIP_VOCABULARY = 49408


def build(name: str, device: torch.device, tiny: bool) -> Any:
    """The pipeline in bf16 on the device; tiny ones in fp32."""
    family = FAMILIES[name]
    scheduler = getattr(diffusers, family.scheduler["_class_name"]).from_config(dict(family.scheduler))
    torch.manual_seed(SEED)
    with _made_on(device, torch.float32 if tiny else torch.bfloat16):
        pipeline = family.make(scheduler) if tiny else MAKERS[name](scheduler)
    pipeline.set_progress_bar_config(disable=True)
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()
            _initialised(component)
    return pipeline.to(device, torch.float32 if tiny else torch.bfloat16)


def denoiser(name: str) -> torch.nn.Module:
    """Without weights, to count them."""
    with torch.device("meta"):
        return DENOISERS[name]()


@contextmanager
def _made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def _initialised(component: torch.nn.Module) -> None:
    """Some parameters, such as padding tokens, come as the memory was."""
    for name, parameter in component.named_parameters():
        if name.endswith("_pad_token"):
            parameter.data.normal_(std=0.02)


def _clip(kind: Any, config: Mapping[str, Any]) -> Any:
    ids = text.clip_tokenizer()
    return kind(
        CLIPTextConfig(
            vocab_size=CLIP_VOCABULARY,
            max_position_embeddings=77,
            bos_token_id=ids.bos_token_id,
            eos_token_id=ids.eos_token_id,
            pad_token_id=ids.pad_token_id,
            **config,
        )
    )


def _clip_tokenizer() -> Any:
    tokenizer = text.clip_tokenizer()
    tokenizer.model_max_length = 77
    return tokenizer


def _t5() -> Any:
    return T5EncoderModel(T5Config(**sizes.T5_XXL))


def _t5_tokenizer() -> Any:
    tokenizer = text.t5_tokenizer()
    tokenizer.model_max_length = 512
    return tokenizer


def _qwen_vl() -> Any:
    ids = text.byte_level(text.QWEN_SPECIALS)
    config = Qwen2_5_VLConfig(
        text_config=dict(sizes.QWEN25_VL_7B_TEXT),
        vision_config=dict(sizes.QWEN25_VL_7B_VISION),
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    return Qwen2_5_VLForConditionalGeneration(config)


DENOISERS: Mapping[str, Callable[[], torch.nn.Module]] = {
    "sdxl": lambda: diffusers.UNet2DConditionModel(**sizes.SDXL_UNET),
    "sd3.5": lambda: diffusers.SD3Transformer2DModel(**sizes.SD35_MEDIUM),
    "flux-dev": lambda: diffusers.FluxTransformer2DModel(**sizes.FLUX_DEV),
    "z-image-turbo": lambda: diffusers.ZImageTransformer2DModel(**sizes.Z_IMAGE),
    "qwen-image": lambda: diffusers.QwenImageTransformer2DModel(**sizes.QWEN_IMAGE),
}


def _sdxl(scheduler: Any) -> Any:
    return diffusers.StableDiffusionXLPipeline(
        vae=diffusers.AutoencoderKL(**sizes.SDXL_VAE),
        unet=DENOISERS["sdxl"](),
        text_encoder=_clip(CLIPTextModel, sizes.CLIP_L),
        text_encoder_2=_clip(CLIPTextModelWithProjection, sizes.CLIP_G),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        scheduler=scheduler,
    )


def _sd35(scheduler: Any) -> Any:
    return diffusers.StableDiffusion3Pipeline(
        vae=diffusers.AutoencoderKL(**sizes.SD3_VAE),
        transformer=DENOISERS["sd3.5"](),
        text_encoder=_clip(CLIPTextModelWithProjection, sizes.CLIP_L),
        text_encoder_2=_clip(CLIPTextModelWithProjection, sizes.CLIP_G),
        text_encoder_3=_t5(),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_clip_tokenizer(),
        tokenizer_3=_t5_tokenizer(),
        scheduler=scheduler,
    )


def _flux(scheduler: Any) -> Any:
    return diffusers.FluxPipeline(
        vae=diffusers.AutoencoderKL(**sizes.FLUX_VAE),
        transformer=DENOISERS["flux-dev"](),
        text_encoder=_clip(CLIPTextModel, sizes.CLIP_L),
        text_encoder_2=_t5(),
        tokenizer=_clip_tokenizer(),
        tokenizer_2=_t5_tokenizer(),
        scheduler=scheduler,
    )


def _z_image(scheduler: Any) -> Any:
    return diffusers.ZImagePipeline(
        vae=diffusers.AutoencoderKL(**sizes.FLUX_VAE),
        transformer=DENOISERS["z-image-turbo"](),
        text_encoder=Qwen3Model(Qwen3Config(**sizes.QWEN3_4B)),
        tokenizer=text.qwen_tokenizer(),
        scheduler=scheduler,
    )


def _qwen_image(scheduler: Any) -> Any:
    return diffusers.QwenImagePipeline(
        vae=diffusers.AutoencoderKLQwenImage(**sizes.QWEN_VAE),
        transformer=DENOISERS["qwen-image"](),
        text_encoder=_qwen_vl(),
        tokenizer=text.qwen_tokenizer(),
        scheduler=scheduler,
    )


MAKERS: Mapping[str, Callable[[Any], Any]] = {
    "sdxl": _sdxl,
    "sd3.5": _sd35,
    "flux-dev": _flux,
    "z-image-turbo": _z_image,
    "qwen-image": _qwen_image,
}
