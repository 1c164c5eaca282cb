"""A worker's diffusion engines: of the model that it starts with, and of those that it is told to hold later.

A model that is left stays in memory where there is room for both. Going back to it then takes a test image. Otherwise
it is unloaded before the next one is loaded.
"""

import asyncio
import gc
import logging
import resource
import time
from collections.abc import Mapping

import torch

from t2i_api.pool import Pool
from t2i_cache.errors import StoreError, StoreUrlError
from t2i_cache.stores import BoundedStore, LatentStore, StoreLimits, open_own_store, open_store
from t2i_worker.device_errors import free_memory, is_out_of_memory
from t2i_worker.digests import variant_of, weights_bytes
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.errors import ModelError
from t2i_worker.jobs import StoredLatent, Tally
from t2i_worker.latents import LatentCache
from t2i_worker.pipelines.device_memory import fits_another
from t2i_worker.settings import WorkerSettings
from t2i_worker.starting import ModelFiles, find_model_files
from t2i_worker.warm_model import WarmModel, find_device, load_warm_model

log = logging.getLogger(__name__)


class DiffusionModels:
    """Makes a worker's engines. Create it once."""

    def __init__(self, settings: WorkerSettings, pool: Pool, files: Mapping[str, ModelFiles]) -> None:
        """`files`: of models that were found already, by name.

        Raises:
            ModelError: the store's URL is wrong, or there is no such device.
        """
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self._settings = settings
        self._spec = pool.spec
        self._store = _choose_store(settings, pool)
        self._device = torch.device(find_device(settings.device))
        self.tally = Tally(store=self._store.health)
        self.own_latents = self._store if isinstance(self._store, BoundedStore) else None
        self._files = dict(files)
        self._warm: dict[str, WarmModel] = {}  # in memory
        self._times: dict[str, tuple[str, WarmUpTimes]] = {}  # by model, of a digest
        self._own: LatentCache | None = None  # of the pool's own model

    async def open(self) -> None:
        """Take over what an earlier life of this worker left in its own store. Of any other, one line in the log if it
        cannot be used; images are made without it until it can.
        """
        if isinstance(self._store, BoundedStore):
            await self._store.open()
            return
        try:
            await self._store.check()
        except StoreError as error:
            log.warning("images start from noise until the latent store serves: %s", error)

    async def prepare(self, model: str) -> None:
        """Find its files, downloaded if they are a hub's.

        Raises:
            ModelError: something is not there.
        """
        if model not in self._files:
            part = self._spec.model_called(model)
            self._files[model] = await asyncio.to_thread(find_model_files, part, self._settings.models_dir)

    def keeps(self, model: str) -> bool:
        return model in self._warm

    async def make(self, model: str) -> DiffusionEngine:
        """A warm engine. The first of a model draws images in its warm-up, a later one draws a test.

        Raises:
            ModelError: not a model that we can serve.
            EngineLost: the device fails.
            JobFailed: the test fails.
        """
        await self.prepare(model)
        again = model in self._times
        if model not in self._warm:
            self._warm[model] = await self._load(model)
        warm = self._warm[model]
        latents = self._latents_of(warm)
        self.tally.failures_in_a_row = 0
        engine = DiffusionEngine(warm.pipeline, warm.facts, warm.times, latents, tally=self.tally)
        if again:
            try:
                await engine.draw_test()
            except BaseException:
                await engine.close()
                self._warm.pop(model, None)
                raise
        return engine

    async def keep_latent(self, held_id: str) -> tuple[StoredLatent, ...]:
        return () if self._own is None else await self._own.keep_aside(held_id)

    async def close(self) -> None:
        await self._store.close()

    def _latents_of(self, warm: WarmModel) -> LatentCache:
        """Of the pool's own model the same for good: it holds what was set aside."""
        if warm.facts.model:
            return LatentCache(self._store, warm.facts, self.tally.latents_not_kept)
        if self._own is None or self._own.facts != warm.facts:
            self._own = LatentCache(self._store, warm.facts, self.tally.latents_not_kept)
        return self._own

    async def _load(self, model: str) -> WarmModel:
        await asyncio.to_thread(self._make_room, model)
        began_s = time.monotonic()
        try:
            warm = await self._load_beside(model)
        except Exception as error:
            if not (is_out_of_memory(error) and self._warm):
                raise
            log.warning("model %r does not fit beside others in memory: they are unloaded", model)
            warm = None
        if warm is None:  # outside of the handler, whose exception holds what was loaded
            await asyncio.to_thread(self._unload_all)
            warm = await self._load_beside(model)
        peak = _peak_bytes(self._device) / (1 << 30)
        log.info("model %r is loaded after %.1f s, peak memory %.2f GiB", model, time.monotonic() - began_s, peak)
        return warm

    async def _load_beside(self, model: str) -> WarmModel:
        digest, times = self._times.get(model, ("", None))
        files = self._files[model]
        warm = await load_warm_model(self._settings, self._spec, model, files, times)
        if times is not None and warm.facts.model_digest != digest:  # other weights lie there now
            del warm
            warm = await load_warm_model(self._settings, self._spec, model, files)
        self._times[model] = (warm.facts.model_digest, warm.times)
        return warm

    def _make_room(self, model: str) -> None:
        """Unload the others unless there is room for all."""
        if self._warm:
            variant = variant_of(self._spec.model_called(model).precision)
            gc.collect()  # what engines left
            if not fits_another(weights_bytes(self._files[model].folder, variant), self._device):
                log.info("there is no room beside %s: unloaded", ", ".join(map(repr, self._warm)))
                self._unload_all()

    def _unload_all(self) -> None:
        self._warm.clear()
        gc.collect()
        free_memory()


def _peak_bytes(device: torch.device) -> int:
    """The most that this process took: of a GPU, or of the host's memory since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _choose_store(settings: WorkerSettings, pool: Pool) -> LatentStore:
    cache = pool.spec.cache
    limits = StoreLimits(cache.capacity_bytes, cache.ttl_seconds, cache.max_reuses)
    try:
        if settings.own_store:
            return open_own_store(settings.store, limits)
        return open_store(settings.store, settings.store_pool or pool.metadata.name, limits)
    except StoreUrlError as error:
        raise ModelError(str(error)) from error
