"""A worker's way to the latent store: fetch the latent that a job starts from, and keep those that it is asked to keep.

The store is disposable. When it fails, a job starts from noise and its latents are not kept; no image ever fails.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from t2i_cache.errors import StoreFull
from t2i_cache.fetching import Fetched, fetch_latent
from t2i_cache.keys import LatentKey, model_fingerprint
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.stores import BoundedStore, LatentStore
from t2i_worker.jobs import Job, ModelFacts, Sink, Source, StoredLatent

log = logging.getLogger(__name__)
KEEP_LIMIT_S = 1.0  # a slow store must not hold the request's place in the worker
_NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


@dataclass(frozen=True, slots=True)
class StartLatent:
    """A run starts from `latent` [1, ...], which enters `step`; None = from noise. `reason` is a FetchReason."""

    latent: Tensor | None
    step: int
    reason: str
    fetch_s: float = 0.0


class LatentCache:
    def __init__(self, store: LatentStore, facts: ModelFacts) -> None:
        self.own = store if isinstance(store, BoundedStore) else None
        self.not_kept: dict[str, int] = {}  # number of latents that were not kept, by reason
        self._store = store
        self.health = store.health
        self._facts = facts

    async def fetch(self, job: Job, source: Source, limit_s: float) -> Fetched:
        """Find the stored latent of the largest step that the job may skip, or the reason why there is none."""
        model = self._fingerprint(job, source.embedder)
        wanted = LatentKey(source.scope, model, source.entry_id, job.level.skipped_steps)
        return await fetch_latent(self._store, wanted, source.steps, limit_s)

    async def keep(self, job: Job, sink: Sink, kept: Mapping[int, Tensor]) -> tuple[StoredLatent, ...]:
        """Store the latents, which are given by step, and return those that the store holds afterwards."""
        model = self._fingerprint(job, sink.embedder)
        stored: list[StoredLatent] = []
        try:
            async with asyncio.timeout(KEEP_LIMIT_S):
                for step, latent in sorted(kept.items()):
                    key = LatentKey(sink.scope, model, sink.entry_id, step)
                    data = encode_record(to_record(key, latent, sink, self._facts.model_digest))
                    await self._store.put(key, data)
                    stored.append(StoredLatent(step, len(data)))
        except Exception as error:  # noqa: BLE001 - the client has its image, whatever the store's library raises
            log.warning("latents not kept: %s", str(error) or type(error).__name__)
            reason = _not_kept_reason(error)
            self.not_kept[reason] = self.not_kept.get(reason, 0) + len(kept) - len(stored)
        if self.own is None:
            return tuple(stored)
        own = self.own  # storing a later one may have evicted an earlier one
        return tuple(one for one in stored if LatentKey(sink.scope, model, sink.entry_id, one.step) in own)

    async def close(self) -> None:
        await self._store.close()

    def _fingerprint(self, job: Job, embedder: str) -> str:
        steps = job.level.num_inference_steps
        facts = self._facts
        if job.size is not None:
            facts = replace(facts, width=job.size.width, height=job.size.height)
        return model_fingerprint(facts, job, num_inference_steps=steps, embedder=embedder)


def _not_kept_reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "Late"
    return "Full" if isinstance(error, StoreFull) else "Unavailable"


def to_record(key: LatentKey, latent: Tensor, sink: Sink, model_digest: str) -> LatentRecord:
    """Copy a latent [1, ...] from the device into a record, as raw little-endian bytes."""
    host = latent.detach().cpu().contiguous()
    raw = host.view(torch.uint8).numpy().tobytes()  # numpy has no bfloat16, so the bytes are viewed
    embedding = np.asarray(sink.embedding)
    return LatentRecord(
        key=key,
        dtype=_NAMES[host.dtype],
        shape=tuple(host.shape),
        tensor=raw,
        embedding=embedding,
        created_s=time.time(),
        model_digest=model_digest,
    )


def to_start(fetched: Fetched) -> StartLatent:
    """The fetched latent on the CPU, or noise if there is none."""
    record = fetched.record
    if record is None:
        return StartLatent(None, 0, fetched.reason)
    raw = torch.frombuffer(bytearray(record.tensor), dtype=_DTYPES[record.dtype])  # a copy that torch may write to
    return StartLatent(raw.view(record.shape), fetched.step, fetched.reason)
