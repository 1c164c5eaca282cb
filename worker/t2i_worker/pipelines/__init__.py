"""Adapters between diffusers pipelines and the engine. The pipeline class that a model folder names chooses one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline

from t2i_sources import INDEX, components_of
from t2i_worker.errors import ModelUnsupported
from t2i_worker.pipelines.adapter import Conditions, PipelineAdapter, StackedConditions, stack_conditions
from t2i_worker.pipelines.diffusion_transformers import FluxAdapter, StableDiffusion3Adapter
from t2i_worker.pipelines.scenes import ScenesAdapter, ScenesPipeline
from t2i_worker.pipelines.schedules import NoiseSchedule
from t2i_worker.pipelines.stable_diffusion import StableDiffusionAdapter, StableDiffusionXLAdapter
from t2i_worker.starting import variant_of

ADAPTERS: Mapping[str, type[PipelineAdapter]] = {
    "ScenesPipeline": ScenesAdapter,
    "StableDiffusionPipeline": StableDiffusionAdapter,
    "StableDiffusionXLPipeline": StableDiffusionXLAdapter,
    "StableDiffusion3Pipeline": StableDiffusion3Adapter,
    "FluxPipeline": FluxAdapter,
}
_OWN_PIPELINES: Mapping[str, Any] = {"ScenesPipeline": ScenesPipeline}
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_adapter(folder: Path, precision: str, width: int, height: int, device: str) -> PipelineAdapter:
    """Load a model folder onto a device.

    Raises:
        ModelUnsupported: its pipeline class has no adapter, files are missing or broken, or it cannot make this size.
    """
    name = _class_name(folder)
    if name not in ADAPTERS:
        raise ModelUnsupported(f"{name} has no adapter; there is one for {', '.join(sorted(ADAPTERS))}")
    kind = ADAPTERS[name]
    if width % kind.size_multiple or height % kind.size_multiple:
        raise ModelUnsupported(f"model.width and model.height must be multiples of {kind.size_multiple} for {name}")
    loader = _OWN_PIPELINES.get(name, DiffusionPipeline)
    try:
        pipeline = loader.from_pretrained(
            folder, dtype=_DTYPES[precision], variant=_variant(folder, precision), local_files_only=True
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ModelUnsupported(f"the model folder cannot be loaded: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.requires_grad_(False).eval()
    return kind(pipeline.to(device), width, height)


def _variant(folder: Path, precision: str) -> str | None:
    """The weights' variant to load: that of the precision if a component has one, else None for the plain weights."""
    wanted = variant_of(precision)
    there = wanted and any(
        any((folder / component).glob(f"*.{wanted}[.-]*")) for component in components_of(folder) if component[0] != "_"
    )
    return wanted if there else None


def _class_name(folder: Path) -> str:
    try:
        return str(json.loads((folder / INDEX).read_text())["_class_name"])
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnsupported(f"{INDEX} is not readable: {error!r}") from error


__all__ = [
    "ADAPTERS",
    "Conditions",
    "NoiseSchedule",
    "PipelineAdapter",
    "StackedConditions",
    "load_adapter",
    "stack_conditions",
]
