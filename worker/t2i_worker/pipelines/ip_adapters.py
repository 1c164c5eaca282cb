"""IP-Adapters of a pool: requests show the model an image beside the prompt. diffusers' own loader reads them.

Each is loaded into the UNet once and taken out again; forwards that ask for it get it back. A pipeline encodes its
image in the request's own thread, and looks for the adapter's projection in its UNet. It finds it in a twin of the
UNet, which shares everything else.
"""

import copy
from pathlib import Path
from typing import Any

from diffusers.loaders import IPAdapterMixin
from safetensors import safe_open
from transformers import CLIPVisionModelWithProjection

from t2i_sources import IpAdapterFiles
from t2i_worker.errors import ModelUnsupported
from t2i_worker.pipelines.ip_adapter_switch import KIND, PROJECTION, InsertedParts
from t2i_worker.pipelines.loaded import LoadedPipeline


def load_ip_adapter(pipeline: LoadedPipeline, name: str, files: IpAdapterFiles) -> None:
    """Load one beside the pipeline; requests may name it from now on.

    Raises:
        ModelUnsupported: the model takes no IP-Adapter, or this one is broken or does not fit.
    """
    stock, switch = pipeline.stock, pipeline.denoiser.ip_adapters
    problem = _problem(stock, files.weights)
    if problem:
        raise _refused(name, problem)
    view = copy.copy(stock)
    switch.remember_own()
    try:
        encoder: Any = CLIPVisionModelWithProjection.from_pretrained(
            files.encoder, dtype=pipeline.dtype, local_files_only=True
        )
        view.register_modules(image_encoder=encoder.to(pipeline.device).eval())
        view.load_ip_adapter(
            str(files.weights.parent),
            subfolder="",
            weight_name=files.weights.name,
            image_encoder_folder=None,  # it is there
            local_files_only=True,
        )
        parts = switch.take_out(name)
    except Exception as error:  # diffusers, transformers, torch and safetensors raise their own kinds
        raise _refused(name, f"it cannot be loaded: {type(error).__name__}: {error}"[:500]) from error
    finally:
        switch.restore()
    view.__dict__["unet"] = _twin(stock.unet, parts)
    pipeline.shown[name] = view


def _problem(stock: Any, weights: Path) -> str | None:
    if not (isinstance(stock, IPAdapterMixin) and hasattr(stock, "unet")):
        return f"{type(stock).__name__} takes no IP-Adapter here; the pipelines of Stable Diffusion 1, 2 and XL do"
    try:
        with safe_open(weights, framework="pt") as file:
            names = list(file.keys())
    except Exception as error:  # noqa: BLE001 - safetensors raises its own kinds
        return f"{weights.name} is no safetensors file: {error}"
    if any("_lora." in one for one in names):
        return "it is a FaceID adapter, which needs a face recogniser and changes the model for all requests"
    return None


def _twin(unet: Any, parts: InsertedParts) -> Any:
    """The same module, with the adapter's projection as its own. Its calls go where the module's go."""
    twin = copy.copy(unet)
    twin.__dict__["_modules"] = {**unet._modules, PROJECTION: parts.projection}
    twin.__dict__["_internal_dict"] = type(unet.config)({**unet.config, KIND: parts.kind})
    return twin


def _refused(name: str, why: str) -> ModelUnsupported:
    return ModelUnsupported(f"model.components[{name!r}]: {why}")
