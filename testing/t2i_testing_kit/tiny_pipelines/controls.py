"""Tiny ControlNets for tiny models, with random weights where training begins with zeros."""

from pathlib import Path
from typing import Any

import diffusers
import torch

from t2i_testing_kit.tiny_pipelines.stock import load_stock


def save_control(model: Path, folder: Path, seed: int = 5) -> Path:
    """Write a ControlNet for the model of a folder, in diffusers' layout."""
    stock = load_stock(model)
    torch.manual_seed(seed)
    made = _control_of(stock)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if not parameter.any() or "controlnet" in name:
                parameter.normal_(std=0.2)
    made.save_pretrained(folder)
    return folder


def _control_of(stock: Any) -> Any:
    match type(stock).__name__:
        case "StableDiffusion3Pipeline":
            return diffusers.SD3ControlNetModel.from_transformer(
                stock.transformer, num_layers=1, num_extra_conditioning_channels=0
            )
        case "FluxPipeline":
            own = stock.transformer.config
            return diffusers.FluxControlNetModel.from_transformer(
                stock.transformer,
                num_layers=1,
                num_single_layers=1,
                attention_head_dim=own.attention_head_dim,
                num_attention_heads=own.num_attention_heads,
            )
    widths = (8, 8, 8, 16)[-_halvings(stock) - 1 :]
    return diffusers.ControlNetModel.from_unet(stock.unet, conditioning_embedding_out_channels=widths)


def _halvings(stock: Any) -> int:
    """The image is made as small as its latents: one convolution for each halving."""
    return int(stock.vae_scale_factor).bit_length() - 1
