"""Similar prompts: the catalogue of the latent store, in a request's words. The gateway's only way to the cache.

Nothing here is needed for a correct answer: without it every prompt has no neighbour.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from dataclasses import dataclass, replace

import numpy as np

from t2i_api.pool import Pool
from t2i_cache.catalogue import Neighbour
from t2i_cache.follow import CatalogueFollower, Holdings, SpreadFollower, open_follower
from t2i_cache.keys import LatentKey, model_fingerprint
from t2i_cache.scope import scope_id
from t2i_cache.stores import LatentStore, StoreHealth, StoreLimits, StoreReason
from t2i_gateway.asked_prompts import AskedPrompts
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.request import ImageRequest
from t2i_policy.distinguishing_words import WordDigests, digest_words
from t2i_policy.eviction import CachedItem, EvictionReason
from t2i_protos.v1 import worker_pb2
from t2i_sources.embedder import Embedding

log = logging.getLogger(__name__)
SHOW_EVERY_S = 1.0
_MARK = "-"  # between an entry's prompt, its seed and the digests of its words
_DAMAGE = {"LatentMissing", "LatentCorrupt", "LatentMismatch"}
_REASONS = frozenset(EvictionReason)


@dataclass(frozen=True, slots=True)
class LatentPrefix:
    """Where a request's latents belong: its tenant's scope, the fingerprint of model and settings, its prompt and seed.
    `embedder` is the kind of embeddings that they are found by. Where those say too little, only the own entry is ever
    found.

    An entry is one run of one prompt with one seed, and its id says both: another seed is another picture. It ends in
    digests of the prompt's words, as the cache keeps no words. Entries of before do not, and nobody knows theirs.
    """

    scope: str
    model: str
    prompt_id: str
    seed: int
    embedder: str
    identical_only: bool = False
    words: WordDigests | None = None

    @property
    def entry_id(self) -> str:
        """Of this request's own run."""
        return self.entry_id_of_before if self.words is None else f"{self.entry_id_of_before}{_MARK}{self.words.text}"

    @property
    def entry_id_of_before(self) -> str:
        """As earlier versions named this request's own run."""
        return f"{self.prompt_id}{_MARK}{self.seed:016x}"

    def holds_prompt(self, entry_id: str) -> bool:
        """Whether an entry is a run of this request's prompt, with whatever seed."""
        return prompt_id_of(entry_id) == self.prompt_id

    def holds_run(self, entry_id: str) -> bool:
        """Whether an entry is the run of this request's prompt and seed."""
        return entry_id in (self.entry_id, self.entry_id_of_before)

    def words_agree(self, entry_id: str) -> bool | None:
        """Whether an entry's prompt says the same, as far as its words' digests tell; None = unknown."""
        if self.holds_prompt(entry_id):
            return True
        kept = entry_id.split(_MARK)[2:]
        return self.words.agrees(kept[0]) if self.words is not None and kept else None

    def key(self, entry_id: str, step: int) -> LatentKey:
        """The key of one latent of an entry here."""
        return LatentKey(self.scope, self.model, entry_id, step)


def prompt_id_of(entry_id: str) -> str:
    """Which prompt an entry is a run of."""
    return entry_id.partition(_MARK)[0]


class NeighbourIndex:
    """`store` None: each worker keeps its own, and tells. One event loop, one writer."""

    def __init__(self, pool: Pool, store: LatentStore | None, metrics: GatewayMetrics) -> None:
        part = pool.spec.cache
        self._pool = pool
        self._metrics = metrics
        self._health = StoreHealth() if store is None else store.health
        self._shown = dict.fromkeys(StoreReason, 0)  # failures that the metric has
        limits = StoreLimits(part.capacity_bytes, part.ttl_seconds, part.max_reuses)
        self._asked = AskedPrompts()
        self._spread: SpreadFollower | None = None
        self._follower: CatalogueFollower
        if store is None:
            self._follower = self._spread = SpreadFollower(limits, self._count_eviction)
        else:
            self._follower = open_follower(store, limits, self._count_eviction)

    def prefix(
        self,
        request: ImageRequest,
        tenant: str,
        model: worker_pb2.WorkerDescription | None,
        embedding: Embedding | None,
    ) -> LatentPrefix | None:
        """None when the pool caches nothing, the prompt is not embedded, or no worker has told us its model yet.

        None too for a request that is drawn as nobody measured: no level starts from such a run, so none is kept.
        """
        scope = scope_id(self._pool.spec.cache.scope, self._pool.metadata.name, tenant)
        if scope is None or model is None or embedding is None or not request.limits.measured:
            return None
        steps = model.num_inference_steps
        fingerprint = model_fingerprint(
            model, request, request.size, num_inference_steps=steps, embedder=embedding.kind
        )
        prompt_id = hashlib.sha256(f"{scope}\x1f{fingerprint}\x1f{request.prompt}".encode()).hexdigest()[:32]
        words = digest_words(request.prompt, scope, fingerprint)
        unread = embedding.unread is not None
        return LatentPrefix(scope, fingerprint, prompt_id, request.seed, embedding.kind, unread, words)

    def nearest(self, prefix: LatentPrefix | None, embedding: Embedding | None) -> Neighbour | None:
        """The exact run of this very prompt and seed if it is cached; else a run of one of the most similar prompts."""
        if prefix is None or embedding is None:
            return None
        for own_id in (prefix.entry_id, prefix.entry_id_of_before):
            own = self._follower.catalogue.find(prefix.key(own_id, 0), time.time())
            if own is not None:
                return own
        if prefix.identical_only:
            return None
        draw = secrets.randbelow(1 << 20) / (1 << 20)
        try:
            return self._follower.catalogue.nearest(prefix.scope, prefix.model, embedding.vector, time.time(), draw)
        except ValueError as error:
            log.warning("a lookup failed: %s", error)
            return None

    def holds_same_image(self, prefix: LatentPrefix | None, tenant: str, neighbour: Neighbour | None) -> bool:
        """Whether what is cached is the image of this very prompt and seed, and this tenant may know it."""
        if prefix is None or neighbour is None or not prefix.holds_run(neighbour.entry_id):
            return False
        return not self._is_shared or self._asked.with_same_seed(tenant, prefix.prompt_id, prefix.seed)

    def repeats(self, prefix: LatentPrefix | None, tenant: str, neighbour: Neighbour | None) -> bool:
        """Whether this tenant asked for this prompt before with another seed.

        Of what all tenants share, only the own requests count: the words of another's must not be told from what they
        do to a decision.
        """
        if prefix is None:
            return False
        cached = neighbour is not None and prefix.holds_prompt(neighbour.entry_id)
        own = neighbour is not None and prefix.holds_run(neighbour.entry_id)
        told = cached and not own and not self._is_shared
        return told or self._asked.with_other_seed(tenant, prefix.prompt_id, prefix.seed)

    def words_agree(self, prefix: LatentPrefix | None, tenant: str, neighbour: Neighbour | None) -> bool | None:
        """Whether the neighbour's distinguishing words are this prompt's; None = unknown.

        Of what all tenants share, only what this tenant asked for itself: decisions must not tell another's words.
        """
        if prefix is None or neighbour is None:
            return None
        if self._is_shared and (tenant, prompt_id_of(neighbour.entry_id)) not in self._asked:
            return None
        return prefix.words_agree(neighbour.entry_id)

    @property
    def _is_shared(self) -> bool:
        return self._pool.spec.cache.scope == "Pool"

    def note_asked(self, prefix: LatentPrefix | None, tenant: str) -> None:
        """A request for this prompt and seed was admitted."""
        if prefix is not None:
            self._asked.note(tenant, prefix.prompt_id, prefix.seed)

    def started(self, key: LatentKey, resumed: bool, reason: str, worker: str) -> None:
        """A worker was asked to resume from this latent, and did or did not."""
        if resumed:
            self._follower.used(key)
        elif reason in _DAMAGE:
            if self._spread is None:
                self._follower.damaged(key)
            else:
                self._spread.taken_back(worker, key, EvictionReason.DAMAGED)

    def stored(self, prefix: LatentPrefix, embedding: Embedding, stored: list[tuple[int, int]], worker: str) -> None:
        """A worker stored (step, bytes) latents of the request's own entry."""
        entry = prefix.key(prefix.entry_id, 0)
        try:
            if self._spread is None:
                self._follower.stored(entry, embedding.vector, stored)
            else:  # it tells too, but the client may ask again before that is read
                now_s, keys = time.time(), [(replace(entry, step=step), size) for step, size in stored]
                items = [CachedItem(key, key.step, size, 1, now_s, now_s) for key, size in keys]
                self._spread.told(worker, [(item, embedding.vector) for item in items])
        except ValueError as error:
            log.warning("an entry was left out of the index: %s", error)

    @property
    def spread(self) -> bool:
        """Whether each worker keeps latents of its own."""
        return self._spread is not None

    def holdings(self, prefix: LatentPrefix | None, neighbour: Neighbour | None) -> Holdings | None:
        """Which workers have the neighbour's latents, by step; None where all workers have what any has."""
        if self._spread is None or prefix is None or neighbour is None:
            return None
        return self._spread.holdings(prefix.key(neighbour.entry_id, 0), neighbour.steps)

    def holders(self, prefix: LatentPrefix | None, neighbour: Neighbour | None) -> frozenset[str]:
        """Who has the neighbour's latent by now, where each worker keeps its own."""
        return frozenset().union(*(self.holdings(prefix, neighbour) or {}).values())

    def reaches(self, worker: str, prefix: LatentPrefix | None, neighbour: Neighbour | None) -> bool:
        """Whether this worker can reach the neighbour's latent by now."""
        if self._spread is None:
            return neighbour is not None
        return worker in self.holders(prefix, neighbour)

    def told(self, worker: str, changes: worker_pb2.LatentChanges) -> None:
        """A worker tells what its own store holds.

        Raises:
            ValueError: a key or an embedding is none.
        """
        if self._spread is None:
            return
        now_s = time.time()
        items = [
            (_item(entry, latent, now_s), np.frombuffer(entry.embedding, "<f4").astype(np.float32))
            for entry in changes.held
            for latent in entry.latents
        ]
        if items:
            self._spread.told(worker, items)
        for gone in changes.gone:
            self._spread.taken_back(worker, LatentKey(gone.scope, gone.model, gone.entry_id, gone.step), gone.reason)

    def lost(self, worker: str) -> None:
        """What this worker holds is not known any more."""
        if self._spread is not None:
            self._spread.lost(worker)

    async def restore(self) -> None:
        """Take in what the store holds from an earlier life."""
        await self._follower.restore()
        self._show()

    async def run(self) -> None:
        """What goes on beside the requests, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follower.run())
            group.create_task(self._show_forever())

    @property
    def store_trouble(self) -> str:
        """Why the store has not served for a while; empty: it serves."""
        trouble = self._health.lasting()
        return trouble.message if trouble is not None else ""

    async def close(self) -> None:
        """Close the store."""
        await self._follower.close()

    async def _show_forever(self) -> None:
        while True:
            await asyncio.sleep(SHOW_EVERY_S)
            self._show()

    def _count_eviction(self, reason: str) -> None:
        self._metrics.evictions.labels(reason if reason in _REASONS else "Other").inc()

    def _show(self) -> None:
        catalogue = self._follower.catalogue
        self._metrics.cache_bytes.set(catalogue.used_bytes)
        self._metrics.cache_entries.set(catalogue.num_entries)
        trouble, failures = self._health.trouble, self._health.failures
        for reason, shown in self._shown.items():
            self._metrics.store_trouble.labels(reason).set(trouble is not None and trouble.reason is reason)
            self._metrics.store_failures.labels(reason).inc(failures.get(reason, 0) - shown)
            self._shown[reason] = failures.get(reason, 0)


def _item(entry: worker_pb2.HeldEntry, latent: worker_pb2.HeldLatent, now_s: float) -> CachedItem[LatentKey]:
    key, born_s = LatentKey(entry.scope, entry.model, entry.entry_id, latent.step), now_s - latent.age_s
    return CachedItem(key, latent.step, latent.size_bytes, max(1, latent.uses), born_s, born_s)
