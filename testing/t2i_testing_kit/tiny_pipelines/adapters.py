"""Tiny LoRA adapters with random weights, as files that people share."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from t2i_testing_kit.tiny_pipelines.stock import load_stock
from t2i_worker.pipelines import load_pipeline

FILE = "pytorch_lora_weights.safetensors"
RANK = 4
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
TEXTS = ["q_proj", "k_proj", "v_proj", "out_proj"]


def save_adapter(model: Path, folder: Path, seed: int, *, texts: bool = False) -> Path:
    """Write an adapter in diffusers' format for the model of a folder; returns its file."""
    stock = load_pipeline(model, "fp32", 48, 48, "cpu").stock
    denoiser = "unet" if hasattr(stock, "unet") else "transformer"
    torch.manual_seed(seed)
    layers = {f"{denoiser}_lora_layers": _random(getattr(stock, denoiser), ATTENTION)}
    if texts:
        layers["text_encoder_lora_layers"] = _random(stock.text_encoder, TEXTS)
    type(stock).save_lora_weights(folder, **layers)
    return folder / FILE


def _random(module: Any, targets: list[str]) -> Any:
    module.add_adapter(LoraConfig(r=RANK, target_modules=targets, init_lora_weights=False), "made")
    return get_peft_model_state_dict(module, adapter_name="made")


def save_kohya_adapter(model: Path, file: Path, seed: int) -> Path:
    """The same layers under the names that kohya's scripts give them, with an alpha of half the rank."""
    unet, generator = load_stock(model).unet, torch.Generator().manual_seed(seed)
    weights = {}
    for name, layer in unet.named_modules():
        if not name.endswith(tuple(ATTENTION)):
            continue
        key = f"lora_unet_{name.replace('.', '_')}"
        weights[f"{key}.lora_down.weight"] = torch.randn(RANK, layer.in_features, generator=generator)
        weights[f"{key}.lora_up.weight"] = 0.1 * torch.randn(layer.out_features, RANK, generator=generator)
        weights[f"{key}.alpha"] = torch.tensor(RANK / 2)
    save_file(weights, file)
    return file
