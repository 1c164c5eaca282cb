"""Load a model folder. Its index alone decides whether the engine can serve its pipeline class, before any weights."""

import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import diffusers
import torch
from transformers import CLIPTextModel

from t2i_sources import INDEX, choose_model_files, components_of
from t2i_worker.device_errors import free_memory
from t2i_worker.digests import variant_of
from t2i_worker.errors import ModelUnsupported, where
from t2i_worker.pipelines.adapters import AdapterFile, load_adapters
from t2i_worker.pipelines.fp8 import check_fp8, quantize_to_fp8
from t2i_worker.pipelines.loaded import LoadedPipeline
from t2i_worker.pipelines.scenes import ScenesPipeline
from t2i_worker.pipelines.variants import kind_of_weights

log = logging.getLogger(__name__)
#: Kinds of devices that weights go to without a stop in the host's memory.
STRAIGHT = frozenset({"cuda"})
DENOISERS = ("transformer", "unet")
#: Components of pipelines whose images come from more than one denoiser or loop.
_FURTHER = ("transformer_2", "unet_2", "prior", "decoder", "prior_prior", "prior_pipe")
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.bfloat16}
_OWN_PIPELINES: Mapping[str, Any] = {"ScenesPipeline": ScenesPipeline}


def load_pipeline(
    folder: Path, precision: str, width: int, height: int, device: str, adapters: Sequence[AdapterFile] = ()
) -> LoadedPipeline:
    """Load a model folder onto a device, and its adapters.

    Raises:
        ModelUnsupported: the engine cannot serve its pipeline class, or files are missing or broken.
    """
    index = read_index(folder / INDEX)
    kind = class_of(index)
    if precision == "fp8":
        check_fp8(torch.device(device))  # before the weights are read
    absent = {name: None for name, value in index.items() if value == [None, None]}
    options = {"dtype": _DTYPES[precision], "variant": _variant(folder, precision), "local_files_only": True, **absent}
    try:
        stock = _read(kind, folder, torch.device(device), options)
    except Exception as error:  # each library that reads files raises its own kinds
        raise ModelUnsupported(f"the model folder cannot be loaded: {type(error).__name__}: {error}") from error
    stock.set_progress_bar_config(disable=True)
    loaded = load_adapters(stock, adapters)
    for component in stock.components.values():
        if isinstance(component, torch.nn.Module):
            _complete(component)
            component.eval()  # gradients stay: without them torch takes other kernels, whose sums differ from stock
    if precision == "fp8":
        quantize_to_fp8(getattr(stock, denoiser_of(kind)), stock.device)
    return LoadedPipeline(stock, denoiser_of(kind), width, height, loaded)


def _read(kind: Any, folder: Path, device: torch.device, options: Mapping[str, Any]) -> Any:
    """Weights go straight to the device where all libraries can; else the host's memory holds them in between."""
    if device.type in STRAIGHT:
        try:
            with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                return kind.from_pretrained(folder, device_map=device.type, **options).to(device)
        except Exception as error:  # noqa: BLE001 - what is wrong with the folder itself is raised below
            log.warning("weights are read through the host's memory: %s", where(error))
            free_memory()
    return kind.from_pretrained(folder, **options).to(device)


def _complete(component: torch.nn.Module) -> None:
    """diffusers' `clip_skip` looks for what transformers 5 has dropped from its CLIP models: the inner model."""
    if isinstance(component, CLIPTextModel) and not hasattr(component, "text_model"):
        component.__dict__["text_model"] = component  # not a submodule, or it would hold itself


def read_index(path: Path) -> Mapping[str, Any]:
    """The content of a `model_index.json`.

    Raises:
        ModelUnsupported: it is missing or not an index.
    """
    try:
        index = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelUnsupported(f"{INDEX} is not readable: {error!r}") from error
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise ModelUnsupported(f"{INDEX} names no pipeline class")
    return index


def class_of(index: Mapping[str, Any]) -> Any:
    """The pipeline class of an index.

    Raises:
        ModelUnsupported: says why the engine cannot serve it.
    """
    name = index["_class_name"]
    kind = _OWN_PIPELINES.get(name) or getattr(diffusers, name, None)
    if not isinstance(kind, type) or not issubclass(kind, diffusers.DiffusionPipeline):
        raise ModelUnsupported(f"diffusers {diffusers.__version__} has no pipeline class {name}")
    takes, made_of = inspect.signature(kind.__call__).parameters, inspect.signature(kind).parameters
    reason = None
    if not denoiser_of(kind):
        reason = f"it has no component {' or '.join(DENOISERS)}"
    elif further := [one for one in _FURTHER if one in made_of and index.get(one, [None])[0] is not None]:
        reason = f"it has further denoisers ({', '.join(further)})"
    elif "scheduler" not in made_of:
        reason = "it has no noise scheduler"
    elif "prompt" not in takes:
        reason = "it takes no prompt"
    elif any("video" in name or "frames" in name for name in takes):
        reason = "it makes videos"
    elif any(name.startswith("audio") for name in takes):
        reason = "it makes sound"
    elif not {"width", "image"} & takes.keys():
        reason = "it makes nothing of a size that is asked for"
    if reason is not None:
        raise ModelUnsupported(f"{name} cannot be served: {reason}")
    return kind


def denoiser_of(kind: Any) -> str:
    """The name of the one component that every step runs; empty if the class has none."""
    made_of = inspect.signature(kind).parameters
    return next((name for name in DENOISERS if name in made_of), "")


def _variant(folder: Path, precision: str) -> str | None:
    """The kind of weights to load, None for the plain ones: of this precision, or else whatever the folder holds."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return kind_of_weights(choose_model_files(names, components_of(folder), variant_of(precision)))
