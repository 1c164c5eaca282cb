"""Start a diffusion engine: load the model, measure it, open the latent store."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from t2i_api.model import ComponentPart, ModelPart
from t2i_api.pool import Pool, PoolSpec
from t2i_cache.errors import StoreError, StoreUrlError
from t2i_cache.stores import BoundedStore, LatentStore, StoreLimits, open_own_store, open_store
from t2i_policy.image_size import SizeCost
from t2i_policy.readiness import ReadyReason
from t2i_sources import IpAdapterFiles
from t2i_worker.device_errors import is_device_lost
from t2i_worker.digests import component_digest, file_digest, ip_adapter_digest, model_digest, variant_of
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.engine.guidance import find_prompted_part
from t2i_worker.engine.side_threads import in_own_thread
from t2i_worker.engine.try_images import try_images
from t2i_worker.engine.warm_up import make_schedule, try_adapters, try_components, warm_up
from t2i_worker.errors import EngineLost, JobInvalid, ModelError, ModelUnsupported
from t2i_worker.jobs import AdapterFacts, ComponentFacts, ModelFacts
from t2i_worker.latents import LatentCache
from t2i_worker.pipelines import AdapterFile, LoadedPipeline, SpeedOptions, load_pipeline
from t2i_worker.pipelines.controls import load_control
from t2i_worker.pipelines.ip_adapters import load_ip_adapter
from t2i_worker.pipelines.preview_decoder import load_preview_decoder
from t2i_worker.settings import WorkerSettings
from t2i_worker.starting import ModelFiles

log = logging.getLogger(__name__)


async def start_diffusion(settings: WorkerSettings, pool: Pool, found: ModelFiles) -> DiffusionEngine:
    """A warm engine of the model in these files.

    Raises:
        ModelError: not a model that we can serve; the store's URL is wrong.
        EngineLost: the device fails.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    spec = pool.spec
    store = _choose_store(settings, pool)
    model = spec.model
    device, files = _device(settings.device), [AdapterFile(name, path) for name, path in found.adapters.items()]
    digest, adapters, _, pipeline = await asyncio.gather(
        asyncio.to_thread(model_digest, found.folder, variant_of(model.precision)),
        asyncio.to_thread(_describe, files, model.adapter_scales),
        _open(store),
        in_own_thread(load_pipeline, found.folder, model.precision, model.width, model.height, device, files),
    )
    if found.preview_decoder is not None:
        await in_own_thread(load_preview_decoder, pipeline, found.preview_decoder)
    components = [await _load_component(pipeline, model, one, found.components[one.name]) for one in model.components]
    wanted = SpeedOptions(compile=model.compile == "Auto", attention=model.attention == "Auto")
    try:
        sizes = model.measured_sizes[1:]
        await in_own_thread(try_images, pipeline, model.guidance_scale, log.info)
        times = await in_own_thread(
            warm_up, pipeline, model.guidance_scale, settings.max_batch, log.info, wanted, sizes
        )
        await in_own_thread(check_levels, pipeline, spec)
        await in_own_thread(try_adapters, pipeline, adapters, model.guidance_scale, log.info)
        await in_own_thread(try_components, pipeline, model.guidance_scale, log.info)
    except RuntimeError as error:
        if not is_device_lost(error, pipeline.device):
            raise
        raise EngineLost("the worker's device failed while it warmed up", ReadyReason.DEVICE_LOST) from error
    log.info("warm: batch cap %d, %.1f ms a step alone", times.batch_cap, 1e3 * times.step_s[0])
    facts = replace(to_facts(pipeline, spec, digest, times), adapters=adapters, components=tuple(components))
    return DiffusionEngine(pipeline, facts, times, LatentCache(store, facts))


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


def _choose_store(settings: WorkerSettings, pool: Pool) -> LatentStore:
    cache = pool.spec.cache
    limits = StoreLimits(cache.capacity_bytes, cache.ttl_seconds, cache.max_reuses)
    try:
        if settings.own_store:
            return open_own_store(settings.store, limits)
        return open_store(settings.store, settings.store_pool or pool.metadata.name, limits)
    except StoreUrlError as error:
        raise ModelError(str(error)) from error


async def _open(store: LatentStore) -> None:
    """Take over what an earlier life of this worker left in its own store. Of any other, one line in the log if it
    cannot be used; images are made without it until it can.
    """
    if isinstance(store, BoundedStore):
        await store.open()
        return
    try:
        await store.check()
    except StoreError as error:
        log.warning("images start from noise until the latent store serves: %s", error)


def check_levels(pipeline: LoadedPipeline, spec: PoolSpec) -> None:
    """Make every schedule that the pool asks for, and find out what levels of part guidance leave out.

    Levels may be added while this worker runs, so that is found out for a pool without such levels too.

    Raises:
        ModelUnsupported: the model cannot draw at one; otherwise each request of that level would fail.
    """
    levels = spec.ladder.levels
    try:
        pipeline.prompted_part = find_prompted_part(pipeline, spec.model.guidance_scale)
        for level in levels:
            make_schedule(pipeline, level)
    except JobInvalid as error:
        raise ModelUnsupported(f"model.numInferenceSteps or levels: {error.violations[0].description}") from error


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelUnsupported("--device asks for cuda, but torch finds no GPU")
    return wanted


def to_facts(pipeline: LoadedPipeline, spec: PoolSpec, digest: str, times: WarmUpTimes) -> ModelFacts:
    """What the worker tells gateways about its model."""
    return ModelFacts(
        model_digest=digest,
        noise_scheduler=pipeline.scheduler_name,
        dtype="fp8" if spec.model.precision == "fp8" else str(pipeline.dtype).removeprefix("torch."),
        device="cpu" if pipeline.device.type == "cpu" else torch.cuda.get_device_name(pipeline.device),
        num_inference_steps=spec.model.num_inference_steps,
        guidance_scale=spec.model.guidance_scale,
        width=spec.model.width,
        height=spec.model.height,
        latent_bytes=times.latent_bytes,
        engine="diffusion",
        sizes=tuple(SizeCost(one.size, one.step_cost) for one in times.sizes),
        image_inputs=pipeline.tasks.takes,
    )
