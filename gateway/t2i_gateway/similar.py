"""Similar prompts: the catalogue with its clock, its store and its deletions. The gateway's only way to the cache.

Nothing here is needed for a correct answer: without it every prompt has no neighbour.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from dataclasses import dataclass

from t2i_cache.catalogue import Catalogue, CatalogueLimits, Deletion, Neighbour, delete_latents, read_store
from t2i_cache.errors import CacheError
from t2i_cache.index import Vector
from t2i_cache.keys import LatentKey, ModelKey
from t2i_cache.scope import scope_id
from t2i_cache.stores import LatentStore
from t2i_gateway.asking import Asked
from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.pool import Pool
from t2i_protos.v1 import worker_pb2

log = logging.getLogger(__name__)
SWEEP_EVERY_S = 30.0
MAX_PENDING_DELETIONS = 10_000
_DAMAGE = {"LatentMissing", "LatentCorrupt", "LatentMismatch"}


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where a request's latents belong: its tenant's scope, the fingerprint of model and settings, its own entry."""

    scope: str
    model: str
    entry_id: str

    def key(self, entry_id: str, step: int) -> LatentKey:
        """The key of one latent on this shelf."""
        return LatentKey(self.scope, self.model, entry_id, step)


class SimilarPrompts:
    """See the module. One event loop, one writer."""

    def __init__(self, pool: Pool, store: LatentStore, metrics: GatewayMetrics) -> None:
        part = pool.spec.cache
        self._pool = pool
        self._store = store
        self._metrics = metrics
        self._catalogue = Catalogue(CatalogueLimits(part.capacity_mebibytes << 20, part.ttl_seconds))
        self._deletions: asyncio.Queue[Deletion] = asyncio.Queue(MAX_PENDING_DELETIONS)

    def shelf(self, asked: Asked, tenant: str, model: worker_pb2.WorkerDescription | None) -> Shelf | None:
        """None when the pool caches nothing, or no worker has told us its model yet."""
        scope = scope_id(self._pool.spec.cache.scope, self._pool.metadata.name, tenant)
        if scope is None or model is None:
            return None
        fingerprint = ModelKey(
            model_digest=model.model_digest,
            noise_scheduler=model.noise_scheduler,
            num_inference_steps=model.num_inference_steps,
            width=model.width,
            height=model.height,
            guidance_milli=round(asked.guidance_scale * 1000),
            dtype=model.dtype,
            negative_prompt=asked.negative_prompt,
        ).fingerprint
        entry = hashlib.sha256(f"{scope}\x1f{fingerprint}\x1f{asked.prompt}".encode()).hexdigest()[:32]
        return Shelf(scope, fingerprint, entry)

    def nearest(self, shelf: Shelf | None, embedding: Vector | None) -> Neighbour | None:
        """The most similar cached prompt of this shelf's scope and model."""
        if shelf is None or embedding is None:
            return None
        draw = secrets.randbelow(1 << 20) / (1 << 20)
        try:
            return self._catalogue.nearest(shelf.scope, shelf.model, embedding, time.time(), draw)
        except ValueError as error:
            log.warning("a lookup failed: %s", error)
            return None

    def started(self, key: LatentKey, skipped_steps: int, reason: str) -> None:
        """A worker began from this shelf's entry `key.entry_id`, asked for step `key.step`."""
        if skipped_steps:
            used = LatentKey(key.scope, key.model, key.entry_id, skipped_steps)
            self._catalogue.record_hit(used, time.time())
        if reason in _DAMAGE and skipped_steps < key.step:
            self._carry_out(self._catalogue.record_damaged(key))

    def stored(self, shelf: Shelf, embedding: Vector, stored: list[tuple[int, int]]) -> None:
        """A worker stored (step, bytes) latents of this shelf's own entry."""
        try:
            deletions = self._catalogue.record_stored(shelf.key(shelf.entry_id, 0), embedding, stored, time.time())
        except ValueError as error:
            log.warning("an entry was left out of the index: %s", error)
            return
        self._carry_out(deletions)
        self._show()

    async def restore(self) -> None:
        """Take in what the store holds from an earlier life."""
        try:
            found = await read_store(self._store, lambda _: None)
        except CacheError as error:
            log.warning("the latent store could not be read: %s", error)
            return
        self._carry_out(self._catalogue.restore(found, time.time()))
        self._show()
        if found:
            log.info("%d latents of earlier prompts are back", self._catalogue.num_items)

    async def run(self) -> None:
        """Carry out deletions and sweep out old entries, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._delete_forever())
            group.create_task(self._sweep_forever())

    async def _delete_forever(self) -> None:
        while True:
            await delete_latents(self._store, [await self._deletions.get()])

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            self._carry_out(self._catalogue.expire(time.time()))
            self._show()

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    def _carry_out(self, deletions: list[Deletion]) -> None:
        for deletion in deletions:
            self._metrics.evictions.labels(deletion.reason).inc()
            try:
                self._deletions.put_nowait(deletion)
            except asyncio.QueueFull:
                log.warning("too many deletions wait; a latent stays until the next start")

    def _show(self) -> None:
        self._metrics.cache_bytes.set(self._catalogue.used_bytes)
        self._metrics.cache_entries.set(self._catalogue.num_entries)
