"""Similar prompts: the books of the latent store, in a request's words. The gateway's only way to the cache.

Nothing here is needed for a correct answer: without it every prompt has no neighbour.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from dataclasses import dataclass

from t2i_cache.books import open_books
from t2i_cache.catalogue import CatalogueLimits, Neighbour
from t2i_cache.keys import LatentKey, ModelKey
from t2i_cache.scope import scope_id
from t2i_cache.stores import LatentStore
from t2i_gateway.asking import Asked
from t2i_gateway.embedding import Embedding
from t2i_gateway.metrics import GatewayMetrics
from t2i_policy.pool import Pool
from t2i_protos.v1 import worker_pb2

log = logging.getLogger(__name__)
SHOW_EVERY_S = 1.0
_DAMAGE = {"LatentMissing", "LatentCorrupt", "LatentMismatch"}


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where a request's latents belong: its tenant's scope, the fingerprint of model and settings, its own entry, and
    the kind of embeddings that they are found by. Where those say too little, only the own entry is ever found."""

    scope: str
    model: str
    entry_id: str
    embedder: str
    identical_only: bool = False

    def key(self, entry_id: str, step: int) -> LatentKey:
        """The key of one latent on this shelf."""
        return LatentKey(self.scope, self.model, entry_id, step)


class SimilarPrompts:
    """See the module. One event loop, one writer."""

    def __init__(self, pool: Pool, store: LatentStore, metrics: GatewayMetrics) -> None:
        part = pool.spec.cache
        self._pool = pool
        self._metrics = metrics
        limits = CatalogueLimits(part.capacity_bytes, part.ttl_seconds, part.max_reuses)
        self._books = open_books(store, limits, lambda reason: metrics.evictions.labels(reason).inc())

    def shelf(
        self, asked: Asked, tenant: str, model: worker_pb2.WorkerDescription | None, embedding: Embedding | None
    ) -> Shelf | None:
        """None when the pool caches nothing, the prompt is not embedded, or no worker has told us its model yet."""
        scope = scope_id(self._pool.spec.cache.scope, self._pool.metadata.name, tenant)
        if scope is None or model is None or embedding is None:
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
            embedder=embedding.kind,
        ).fingerprint
        entry = hashlib.sha256(f"{scope}\x1f{fingerprint}\x1f{asked.prompt}".encode()).hexdigest()[:32]
        return Shelf(scope, fingerprint, entry, embedding.kind, embedding.unread is not None)

    def nearest(self, shelf: Shelf | None, embedding: Embedding | None) -> Neighbour | None:
        """The most similar cached prompt of this shelf's scope and model; the identical one or none for some."""
        if shelf is None or embedding is None:
            return None
        if shelf.identical_only:
            return self._books.catalogue.find(shelf.key(shelf.entry_id, 0), time.time())
        draw = secrets.randbelow(1 << 20) / (1 << 20)
        try:
            return self._books.catalogue.nearest(shelf.scope, shelf.model, embedding.vector, time.time(), draw)
        except ValueError as error:
            log.warning("a lookup failed: %s", error)
            return None

    def started(self, key: LatentKey, skipped_steps: int, reason: str) -> None:
        """A worker began from this shelf's entry `key.entry_id`, asked for step `key.step`."""
        if skipped_steps:
            self._books.used(LatentKey(key.scope, key.model, key.entry_id, skipped_steps))
        if reason in _DAMAGE and skipped_steps < key.step:
            self._books.damaged(key)

    def stored(self, shelf: Shelf, embedding: Embedding, stored: list[tuple[int, int]]) -> None:
        """A worker stored (step, bytes) latents of this shelf's own entry."""
        try:
            self._books.stored(shelf.key(shelf.entry_id, 0), embedding.vector, stored)
        except ValueError as error:
            log.warning("an entry was left out of the index: %s", error)

    async def restore(self) -> None:
        """Take in what the store holds from an earlier life."""
        await self._books.restore()
        self._show()

    async def run(self) -> None:
        """What goes on beside the requests, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._books.run())
            group.create_task(self._show_forever())

    async def close(self) -> None:
        """Close the store."""
        await self._books.close()

    async def _show_forever(self) -> None:
        while True:
            await asyncio.sleep(SHOW_EVERY_S)
            self._show()

    def _show(self) -> None:
        catalogue = self._books.catalogue
        self._metrics.cache_bytes.set(catalogue.used_bytes)
        self._metrics.cache_entries.set(catalogue.num_entries)
