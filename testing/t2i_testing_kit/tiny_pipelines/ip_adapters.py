"""Tiny IP-Adapters for tiny models: a file of weights beside the folder of an image encoder, as people share them."""

from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import FluxIPAdapterMixin, SD3IPAdapterMixin
from safetensors.torch import save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from t2i_testing_kit.tiny_pipelines.stock import load_stock

WEIGHTS = "ip-adapter.safetensors"
#: Where the repository that most people use has those of SDXL: file, and the encoder that it shares with others.
PUBLISHED, PUBLISHED_ENCODER = "sdxl_models/ip-adapter_sdxl_vit-h.safetensors", "models/image_encoder"
ENCODER = "image_encoder"
WIDTH, EMBEDDING, TOKENS, IMAGE_PX = 16, 24, 4, 16
INNER, LAYERS = 64, 4  # of resamplers: diffusers takes four layers, and heads of 64
_SIZES = {
    "hidden_size": WIDTH,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": IMAGE_PX,
    "patch_size": 8,
}


def save_ip_adapter(
    model: Path, folder: Path, seed: int = 5, *, plus: bool = False, weights_in: str = WEIGHTS, encoder: str = ENCODER
) -> Path:
    """Write an adapter for the model of a folder. One of `plus` looks at all patches of the image, as those of SD3
    always do. `weights_in` and `encoder` are paths in its folder.
    """
    stock, generator = load_stock(model), torch.Generator().manual_seed(seed)
    if isinstance(stock, SD3IPAdapterMixin):
        weights = _for_sd3(stock.transformer, generator)
    elif isinstance(stock, FluxIPAdapterMixin):
        weights = _for_flux(stock.transformer, generator)
    else:
        weights = _for_unet(stock.unet, generator, plus)
    (folder / weights_in).parent.mkdir(parents=True)
    save_file(weights, folder / weights_in)
    torch.manual_seed(seed)
    if isinstance(stock, SD3IPAdapterMixin):
        SiglipVisionModel(SiglipVisionConfig(**_SIZES)).save_pretrained(folder / encoder)
        SiglipImageProcessor(size={"height": IMAGE_PX, "width": IMAGE_PX}).save_pretrained(folder / encoder)
    else:
        made = CLIPVisionModelWithProjection(CLIPVisionConfig(**_SIZES, projection_dim=EMBEDDING))
        made.save_pretrained(folder / encoder)
    return folder


def _for_unet(unet: Any, generator: torch.Generator, plus: bool) -> dict[str, torch.Tensor]:
    text_width = unet.config.cross_attention_dim
    projection = _resampler(text_width, generator) if plus else _projection(text_width, generator)
    weights = {f"image_proj.{name}": value for name, value in projection.items()}
    attentions = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(attentions):
        out = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for matrix in ("to_k_ip", "to_v_ip"):
            weights[f"ip_adapter.{2 * number + 1}.{matrix}.weight"] = _random(generator, out, text_width)
    return weights


def _for_flux(transformer: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """By the names that its first trainers gave them."""
    text_width, width = transformer.config.joint_attention_dim, transformer.inner_dim
    projection = _projection(text_width, generator)
    weights = {f"ip_adapter_proj_model.{name}": value for name, value in projection.items()}
    for number in range(transformer.config.num_layers):
        for matrix in ("k", "v"):
            place = f"double_blocks.{number}.processor.ip_adapter_double_stream_{matrix}_proj"
            weights[f"{place}.weight"] = _random(generator, width, text_width)
            weights[f"{place}.bias"] = _random(generator, width)
    return weights


def _for_sd3(transformer: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
    width, head = transformer.inner_dim, transformer.config.attention_head_dim
    projection = _timed_resampler(width, generator)
    weights = {f"image_proj.{name}": value for name, value in projection.items()}
    for number in range(len(transformer.attn_processors)):
        place = f"ip_adapter.{number}"
        weights[f"{place}.norm_ip.linear.weight"] = _random(generator, 2 * width, INNER)
        weights[f"{place}.norm_ip.linear.bias"] = _random(generator, 2 * width)
        for matrix in ("to_k_ip", "to_v_ip"):
            weights[f"{place}.{matrix}.weight"] = _random(generator, width, width)
        for norm in ("norm_q", "norm_k", "norm_ip_k"):
            weights[f"{place}.{norm}.weight"] = 1 + _random(generator, head)
    return weights


def _projection(text_width: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        "proj.weight": _random(generator, TOKENS * text_width, EMBEDDING),
        "proj.bias": _random(generator, TOKENS * text_width),
        "norm.weight": torch.ones(text_width),
        "norm.bias": torch.zeros(text_width),
    }


def _resampler(text_width: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """By the names of the adapters' own training code."""
    weights = {
        "latents": _random(generator, 1, TOKENS, INNER),
        "proj_in.weight": _random(generator, INNER, WIDTH),
        "proj_in.bias": _random(generator, INNER),
        "proj_out.weight": _random(generator, text_width, INNER),
        "proj_out.bias": _random(generator, text_width),
        "norm_out.weight": torch.ones(text_width),
        "norm_out.bias": torch.zeros(text_width),
    }
    for layer in range(LAYERS):
        attention, forward = f"layers.{layer}.0", f"layers.{layer}.1"
        for norm in (f"{attention}.norm1", f"{attention}.norm2", f"{forward}.0"):
            weights |= {f"{norm}.weight": torch.ones(INNER), f"{norm}.bias": torch.zeros(INNER)}
        weights |= {
            f"{attention}.to_q.weight": _random(generator, INNER, INNER),
            f"{attention}.to_kv.weight": _random(generator, 2 * INNER, INNER),
            f"{attention}.to_out.weight": _random(generator, INNER, INNER),
            f"{forward}.1.weight": _random(generator, 4 * INNER, INNER),
            f"{forward}.3.weight": _random(generator, INNER, 4 * INNER),
        }
    return weights


def _timed_resampler(width: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """A resampler that also reads the step's time, as SD3's do."""
    weights = _resampler(width, generator)
    for layer in range(LAYERS):
        weights[f"layers.{layer}.2.1.weight"] = _random(generator, 4 * INNER, INNER)
        weights[f"layers.{layer}.2.1.bias"] = _random(generator, 4 * INNER)
    for number, taken in ((1, WIDTH), (2, INNER)):
        weights[f"time_embedding.linear_{number}.weight"] = _random(generator, INNER, taken)
        weights[f"time_embedding.linear_{number}.bias"] = _random(generator, INNER)
    return weights


def _random(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return 0.2 * torch.randn(*shape, generator=generator)
