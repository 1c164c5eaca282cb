"""Tiny IP-Adapters for tiny UNets: a file of weights beside the folder of an image encoder, as people share them."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from t2i_testing_kit.tiny_pipelines.stock import load_stock

WEIGHTS = "ip-adapter.safetensors"
#: Where the repository that most people use has those of SDXL: file, and the encoder that it shares with others.
PUBLISHED, PUBLISHED_ENCODER = "sdxl_models/ip-adapter_sdxl_vit-h.safetensors", "models/image_encoder"
ENCODER = "image_encoder"
WIDTH, EMBEDDING, TOKENS, IMAGE_PX = 16, 24, 4, 16


def save_ip_adapter(
    model: Path, folder: Path, seed: int = 5, *, plus: bool = False, weights_in: str = WEIGHTS, encoder: str = ENCODER
) -> Path:
    """Write an adapter for the model of a folder. One of `plus` looks at all patches of the image. `weights_in` and
    `encoder` are paths in its folder.
    """
    unet, generator = load_stock(model).unet, torch.Generator().manual_seed(seed)
    text_width = unet.config.cross_attention_dim
    projection = _resampler(text_width, generator) if plus else _projection(text_width, generator)
    weights = {f"image_proj.{name}": value for name, value in projection.items()}
    attentions = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    for number, name in enumerate(attentions):
        out = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for matrix in ("to_k_ip", "to_v_ip"):
            weights[f"ip_adapter.{2 * number + 1}.{matrix}.weight"] = _random(generator, out, text_width)
    (folder / weights_in).parent.mkdir(parents=True)
    save_file(weights, folder / weights_in)
    torch.manual_seed(seed)
    _encoder().save_pretrained(folder / encoder)
    return folder


def _encoder() -> Any:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=20,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=IMAGE_PX,
            patch_size=8,
            projection_dim=EMBEDDING,
        )
    )


def _projection(text_width: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        "proj.weight": _random(generator, TOKENS * text_width, EMBEDDING),
        "proj.bias": _random(generator, TOKENS * text_width),
        "norm.weight": torch.ones(text_width),
        "norm.bias": torch.zeros(text_width),
    }


def _resampler(text_width: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """By the names of the adapters' own training code. diffusers takes four layers, and heads of 64."""
    inner = 64
    weights = {
        "latents": _random(generator, 1, TOKENS, inner),
        "proj_in.weight": _random(generator, inner, WIDTH),
        "proj_in.bias": _random(generator, inner),
        "proj_out.weight": _random(generator, text_width, inner),
        "proj_out.bias": _random(generator, text_width),
        "norm_out.weight": torch.ones(text_width),
        "norm_out.bias": torch.zeros(text_width),
    }
    for layer in range(4):
        attention, forward = f"layers.{layer}.0", f"layers.{layer}.1"
        for norm in (f"{attention}.norm1", f"{attention}.norm2", f"{forward}.0"):
            weights |= {f"{norm}.weight": torch.ones(inner), f"{norm}.bias": torch.zeros(inner)}
        weights |= {
            f"{attention}.to_q.weight": _random(generator, inner, inner),
            f"{attention}.to_kv.weight": _random(generator, 2 * inner, inner),
            f"{attention}.to_out.weight": _random(generator, inner, inner),
            f"{forward}.1.weight": _random(generator, 4 * inner, inner),
            f"{forward}.3.weight": _random(generator, inner, 4 * inner),
        }
    return weights


def _random(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return 0.2 * torch.randn(*shape, generator=generator)
