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
from t2i_worker.digests import model_digest
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.engine.side_threads import in_own_thread
from t2i_worker.engine.warm_up import warm_up
from t2i_worker.errors import EngineLost, JobInvalid, ModelError, ModelUnsupported
from t2i_worker.jobs import ModelFacts
from t2i_worker.latents import LatentCache
from t2i_worker.pipelines import PipelineAdapter, load_adapter
from t2i_worker.settings import WorkerSettings
from t2i_worker.starting import variant_of

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
    digest, _, adapter = await asyncio.gather(
        asyncio.to_thread(model_digest, folder, variant_of(model.precision)),
        _open(store),
        in_own_thread(load_adapter, folder, model.precision, model.width, model.height, _device(settings.device)),
    )
    facts = to_facts(adapter, spec, digest)
    check_step_counts(adapter, spec)
    try:
        times = await in_own_thread(warm_up, adapter, facts.guidance_scale, settings.max_batch, log.info)
    except RuntimeError as error:
        if not is_device_lost(error, adapter.device):
            raise
        raise EngineLost("the worker's device failed while it warmed up", ReadyReason.DEVICE_LOST) from error
    log.info("warm: batch cap %d, %.1f ms a step alone", times.batch_cap, 1e3 * times.step_s[0])
    return DiffusionEngine(adapter, facts, times, LatentCache(store, facts))


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


def check_step_counts(adapter: PipelineAdapter, spec: PoolSpec) -> None:
    """Make every schedule that the pool asks for.

    Raises:
        ModelUnsupported: the model's noise scheduler refuses one; otherwise each request of that level would fail.
    """
    counts = {spec.model.num_inference_steps, *(level.num_inference_steps for level in spec.levels)}
    try:
        for steps in sorted(filter(None, counts)):
            adapter.schedule(steps, 0, 0)
    except JobInvalid as error:
        raise ModelUnsupported(f"model.numInferenceSteps or levels: {error.violations[0].description}") from error


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise ModelUnsupported("--device asks for cuda, but torch finds no GPU")
    return wanted


def to_facts(adapter: PipelineAdapter, spec: PoolSpec, digest: str) -> ModelFacts:
    """What the worker tells gateways about its model."""
    return ModelFacts(
        model_digest=digest,
        noise_scheduler=type(adapter.scheduler).__name__,
        dtype=str(adapter.dtype).removeprefix("torch."),
        device="cpu" if adapter.device.type == "cpu" else torch.cuda.get_device_name(adapter.device),
        num_inference_steps=spec.model.num_inference_steps,
        guidance_scale=spec.model.guidance_scale,
        width=spec.model.width,
        height=spec.model.height,
        latent_bytes=adapter.initial_latent(0).nbytes,
        engine="diffusion",
    )
