"""Latents in and out of the cache, for one worker: fetch a start within about a step's time, keep what is asked for.

The store is disposable: any trouble means starting from noise, or not keeping; never a failed image.
"""

import asyncio
import logging
import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from t2i_cache.errors import CacheError, StoreFull
from t2i_cache.fetching import Fetched, FetchReason, fetch_latent
from t2i_cache.keys import LatentKey, model_fingerprint
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.stores import BoundedStore, LatentStore
from t2i_worker.jobs import Job, ModelFacts, Sink, Source

log = logging.getLogger(__name__)
KEEP_LIMIT_S = 1.0
_NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


class LatentShelf:
    def __init__(self, store: LatentStore, facts: ModelFacts) -> None:
        self.own = store if isinstance(store, BoundedStore) else None
        self.not_kept: dict[str, int] = {}  # latents that were to be kept, by why they were not
        self._store = store
        self.health = store.health
        self._facts = facts

    async def fetch(self, job: Job, source: Source, limit_s: float) -> Fetched:
        """The best stored latent at or below the job's skipped steps, or none with the reason."""
        model = self._fingerprint(job, source.embedder)
        wanted = LatentKey(source.scope, model, source.entry_id, job.level.skipped_steps)
        return await fetch_latent(self._store, wanted, source.steps, limit_s)

    async def keep(self, job: Job, sink: Sink, kept: Mapping[int, Tensor]) -> tuple[tuple[int, int], ...]:
        """Store latents by step; returns (step, bytes) of those that are stored."""
        model = self._fingerprint(job, sink.embedder)
        stored: list[tuple[int, int]] = []
        try:
            async with asyncio.timeout(KEEP_LIMIT_S):
                for step, latent in sorted(kept.items()):
                    key = LatentKey(sink.scope, model, sink.entry_id, step)
                    data = encode_record(to_record(key, latent, sink, self._facts.model_digest))
                    await self._store.put(key, data)
                    stored.append((step, len(data)))
        except (CacheError, TimeoutError) as error:
            log.warning("latents not kept: %s", str(error) or "the store took too long")
            reason = _not_kept_reason(error)
            self.not_kept[reason] = self.not_kept.get(reason, 0) + len(kept) - len(stored)
        if self.own is None:
            return tuple(stored)
        there = self.own  # a later one of them may have sent an earlier one away
        return tuple(
            (step, size) for step, size in stored if LatentKey(sink.scope, model, sink.entry_id, step) in there
        )

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    def _fingerprint(self, job: Job, embedder: str) -> str:
        steps = job.level.num_inference_steps
        return model_fingerprint(self._facts, job, num_inference_steps=steps, embedder=embedder)


def _not_kept_reason(error: CacheError | TimeoutError) -> str:
    if isinstance(error, TimeoutError):
        return "Late"
    return "Full" if isinstance(error, StoreFull) else "Unavailable"


def to_record(key: LatentKey, latent: Tensor, sink: Sink, model_digest: str) -> LatentRecord:
    """A latent [1, ...] as raw little-endian bytes."""
    host = latent.detach().cpu().contiguous()
    raw = host.view(torch.uint8).numpy().tobytes()
    embedding = np.asarray(sink.embedding)
    return LatentRecord(key, _NAMES[host.dtype], tuple(host.shape), raw, embedding, time.time(), model_digest)


def to_latent(fetched: Fetched, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor | None, str]:
    """The fetched latent on the CPU and the reason; one of another shape or dtype is no start."""
    record = fetched.record
    if record is None:
        return None, fetched.reason
    if record.shape != shape or _DTYPES[record.dtype] != dtype:
        return None, FetchReason.MISMATCH
    raw = torch.frombuffer(bytearray(record.tensor), dtype=dtype)
    return raw.view(shape), fetched.reason
