"""Start a diffusion engine: load the model, measure it, open the latent store."""

import asyncio
import logging
from pathlib import Path

import torch

from t2i_api.pool import Pool, PoolSpec
from t2i_cache.errors import StoreError, StoreUrlError
from t2i_cache.stores import BoundedStore, LatentStore, StoreLimits, open_own_store, open_store
from t2i_policy.readiness import ReadyReason
from t2i_worker.device_errors import is_device_lost
from t2i_worker.digests import model_digest, variant_of
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.engine.side_threads import in_own_thread
from t2i_worker.engine.warm_up import make_schedule, warm_up
from t2i_worker.errors import EngineLost, JobInvalid, ModelError, ModelUnsupported
from t2i_worker.jobs import ModelFacts
from t2i_worker.latents import LatentCache
from t2i_worker.pipelines import LoadedPipeline, load_pipeline
from t2i_worker.settings import WorkerSettings

log = logging.getLogger(__name__)


async def start_diffusion(settings: WorkerSettings, pool: Pool, folder: Path) -> DiffusionEngine:
    """A warm engine of the model in this folder.

    Raises:
        ModelError: not a model that we can serve; the store's URL is wrong.
        EngineLost: the device fails.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    spec = pool.spec
    store = _choose_store(settings, pool)
    model = spec.model
    digest, _, pipeline = await asyncio.gather(
        asyncio.to_thread(model_digest, folder, variant_of(model.precision)),
        _open(store),
        in_own_thread(load_pipeline, folder, model.precision, model.width, model.height, _device(settings.device)),
    )
    try:
        times = await in_own_thread(warm_up, pipeline, model.guidance_scale, settings.max_batch, log.info)
        await in_own_thread(check_step_counts, pipeline, spec)
    except RuntimeError as error:
        if not is_device_lost(error, pipeline.device):
            raise
        raise EngineLost("the worker's device failed while it warmed up", ReadyReason.DEVICE_LOST) from error
    log.info("warm: batch cap %d, %.1f ms a step alone", times.batch_cap, 1e3 * times.step_s[0])
    facts = to_facts(pipeline, spec, digest, times.latent_bytes)
    return DiffusionEngine(pipeline, facts, times, LatentCache(store, facts))


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


def check_step_counts(pipeline: LoadedPipeline, spec: PoolSpec) -> None:
    """Make every schedule that the pool asks for.

    Raises:
        ModelUnsupported: the model's noise scheduler refuses one; otherwise each request of that level would fail.
    """
    counts = {spec.model.num_inference_steps, *(level.num_inference_steps for level in spec.levels)}
    try:
        for steps in sorted(filter(None, counts)):
            make_schedule(pipeline, steps)
    except JobInvalid as error:
        raise ModelUnsupported(f"model.numInferenceSteps or levels: {error.violations[0].description}") from error


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelUnsupported("--device asks for cuda, but torch finds no GPU")
    return wanted


def to_facts(pipeline: LoadedPipeline, spec: PoolSpec, digest: str, latent_bytes: int) -> ModelFacts:
    """What the worker tells gateways about its model."""
    return ModelFacts(
        model_digest=digest,
        noise_scheduler=pipeline.scheduler_name,
        dtype=str(pipeline.dtype).removeprefix("torch."),
        device="cpu" if pipeline.device.type == "cpu" else torch.cuda.get_device_name(pipeline.device),
        num_inference_steps=spec.model.num_inference_steps,
        guidance_scale=spec.model.guidance_scale,
        width=spec.model.width,
        height=spec.model.height,
        latent_bytes=latent_bytes,
        engine="diffusion",
    )
