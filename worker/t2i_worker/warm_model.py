"""Load one of the pool's models and warm it up: everything that an engine of it needs."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from t2i_api.model import ComponentPart, ModelPart
from t2i_api.pool import PoolSpec
from t2i_policy.image_size import SizeCost
from t2i_policy.readiness import ReadyReason
from t2i_sources import IpAdapterFiles
from t2i_worker.device_errors import is_device_lost
from t2i_worker.digests import component_digest, file_digest, ip_adapter_digest, model_digest, variant_of
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.guidance import find_prompted_part
from t2i_worker.engine.side_threads import in_own_thread
from t2i_worker.engine.try_images import try_images
from t2i_worker.engine.warm_up import make_schedule, try_adapters, try_components, warm_up
from t2i_worker.errors import EngineLost, JobInvalid, ModelUnsupported
from t2i_worker.jobs import AdapterFacts, ComponentFacts, ModelFacts
from t2i_worker.pipelines import AdapterFile, LoadedPipeline, SpeedOptions, load_pipeline
from t2i_worker.pipelines.controls import load_control
from t2i_worker.pipelines.ip_adapters import load_ip_adapter
from t2i_worker.pipelines.preview_decoder import load_preview_decoder
from t2i_worker.settings import WorkerSettings
from t2i_worker.starting import ModelFiles

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WarmModel:
    """A model in memory, on its device, and what was measured of it."""

    pipeline: LoadedPipeline
    facts: ModelFacts
    times: WarmUpTimes


async def load_warm_model(
    settings: WorkerSettings, spec: PoolSpec, name: str, found: ModelFiles, times: WarmUpTimes | None = None
) -> WarmModel:
    """The pool's model of this name, of these files. `times`: as measured earlier in this process; then only what
    drawing needs is done again.

    Raises:
        ModelError: not a model that we can serve.
        EngineLost: the device fails.
    """
    model = spec.model_called(name)
    device, files = find_device(settings.device), [AdapterFile(one, path) for one, path in found.adapters.items()]
    digest, adapters, pipeline = await asyncio.gather(
        asyncio.to_thread(model_digest, found.folder, variant_of(model.precision)),
        asyncio.to_thread(_describe, files, model.adapter_scales),
        in_own_thread(load_pipeline, found.folder, model.precision, model.width, model.height, device, files),
    )
    if found.preview_decoder is not None:
        await in_own_thread(load_preview_decoder, pipeline, found.preview_decoder)
    components = [await _load_component(pipeline, model, one, found.components[one.name]) for one in model.components]
    wanted = SpeedOptions(compile=model.compile == "Auto", attention=model.attention == "Auto")
    try:
        sizes = model.measured_sizes[1:]
        await in_own_thread(try_images, pipeline, model.guidance_scale, log.info)
        if times is None or wanted != SpeedOptions():
            times = await in_own_thread(
                warm_up, pipeline, model.guidance_scale, settings.max_batch, log.info, wanted, sizes
            )
        await in_own_thread(check_levels, pipeline, spec, name)
        await in_own_thread(try_adapters, pipeline, adapters, model.guidance_scale, log.info)
        await in_own_thread(try_components, pipeline, model.guidance_scale, log.info)
    except RuntimeError as error:
        if not is_device_lost(error, pipeline.device):
            raise
        raise EngineLost("the worker's device failed while it warmed up", ReadyReason.DEVICE_LOST) from error
    log.info("warm: batch cap %d, %.1f ms a step alone", times.batch_cap, 1e3 * times.step_s[0])
    facts = to_facts(pipeline, model, digest, times)
    facts = replace(facts, adapters=adapters, components=tuple(components), model=name)
    return WarmModel(pipeline, facts, times)


async def _load_component(
    pipeline: LoadedPipeline, model: ModelPart, one: ComponentPart, found: Path | IpAdapterFiles
) -> ComponentFacts:
    variant = variant_of(model.precision)
    if isinstance(found, Path):
        await in_own_thread(load_control, pipeline, one.name, found, variant)
        digest = await asyncio.to_thread(component_digest, found, variant)
    else:
        await in_own_thread(load_ip_adapter, pipeline, one.name, found)
        digest = await asyncio.to_thread(ip_adapter_digest, found)
    return ComponentFacts(one.name, digest, one.scale, one.kind)


def _describe(files: Sequence[AdapterFile], scales: Mapping[str, float]) -> tuple[AdapterFacts, ...]:
    return tuple(AdapterFacts(one.name, file_digest(one.path), scales[one.name]) for one in files)


def check_levels(pipeline: LoadedPipeline, spec: PoolSpec, name: str = "") -> None:
    """Make every schedule that the pool asks for of the model of this name. Find out what part guidance leaves out.

    Levels may be added while this worker runs, so that is found out for a pool without such levels too.

    Raises:
        ModelUnsupported: the model cannot draw at one; otherwise each request of that level would fail.
    """
    levels = [level for level in spec.ladder.levels if level.model == name]
    try:
        pipeline.prompted_part = find_prompted_part(pipeline, spec.model_called(name).guidance_scale)
        for level in levels:
            make_schedule(pipeline, level)
    except JobInvalid as error:
        of = f" of {name!r}" if name else ""
        raise ModelUnsupported(f"model.numInferenceSteps or levels{of}: {error.violations[0].description}") from error


def find_device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelUnsupported("--device asks for cuda, but torch finds no GPU")
    return wanted


def to_facts(pipeline: LoadedPipeline, model: ModelPart, digest: str, times: WarmUpTimes) -> ModelFacts:
    """What the worker tells gateways about its model."""
    return ModelFacts(
        model_digest=digest,
        noise_scheduler=pipeline.scheduler_name,
        dtype="fp8" if model.precision == "fp8" else str(pipeline.dtype).removeprefix("torch."),
        device="cpu" if pipeline.device.type == "cpu" else torch.cuda.get_device_name(pipeline.device),
        num_inference_steps=model.num_inference_steps,
        guidance_scale=model.guidance_scale,
        width=model.width,
        height=model.height,
        latent_bytes=times.latent_bytes,
        engine="diffusion",
        sizes=tuple(SizeCost(one.size, one.step_cost) for one in times.sizes),
        image_inputs=pipeline.tasks.takes,
    )
