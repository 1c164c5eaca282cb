"""The denoiser's matrices in fp8, by torchao: weights once, activations at each call, each row with its own scale."""

from typing import Any

import torch
from torch import nn

from t2i_worker.errors import ModelUnsupported

MIN_CAPABILITY = (8, 9)  # Ada and Hopper are the first GPUs that multiply fp8
GRAIN = 16  # rows and columns of a matrix come in such numbers


def check_fp8(device: torch.device) -> Any:
    """Returns torchao's module of quantisation.

    Raises:
        ModelUnsupported: this worker cannot compute in fp8; says why.
    """
    field = "model.precision fp8"
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        raise ModelUnsupported(f"{field} needs a GPU of compute capability 8.9 or more; use bf16")
    try:
        from torchao import quantization
    except ImportError as error:
        raise ModelUnsupported(f"{field} needs torchao in the worker's image: pip install torchao") from error
    return quantization


def quantize_to_fp8(module: nn.Module, device: torch.device) -> None:
    """Change the matrices that fp8 can hold, in place.

    Raises:
        ModelUnsupported: this worker cannot compute in fp8.
    """
    quantization = check_fp8(device)
    config = quantization.Float8DynamicActivationFloat8WeightConfig(granularity=quantization.PerRow())
    quantization.quantize_(module, config, filter_fn=is_fit)


def is_fit(module: nn.Module, name: str) -> bool:
    """Small ones stay: embeddings of time and guidance, and the way out, which decides each pixel."""
    outer = name.partition(".")[0]
    return (
        isinstance(module, nn.Linear)
        and module.in_features % GRAIN == 0
        and module.out_features % GRAIN == 0
        and "." in name
        and "lora_" not in name  # peft's own, which add to the matrix beside them
        and not any(word in outer for word in ("time", "embed", "proj_out", "norm_out"))
    )
