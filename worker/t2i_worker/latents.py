"""A worker's way to the latent store: fetch the final latent that a job starts from, and keep the one that it leaves.

A final latent is kept under the last step of the full schedule, whatever schedule drew it.
The store is disposable. When it fails, a job starts from noise and its latent is not kept; no image ever fails.
"""

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from t2i_cache.errors import StoreFull
from t2i_cache.fetching import Fetched, fetch_latent
from t2i_cache.keys import LatentKey, model_fingerprint
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.stores import BoundedStore, LatentStore
from t2i_cache.time_limit import within
from t2i_worker.held_latents import LatentsAside
from t2i_worker.jobs import Job, ModelFacts, Sink, Source, StoredLatent

log = logging.getLogger(__name__)
OTHER_MODEL = "OtherModel"
KEEP_LIMIT_S = 1.0  # a slow store must not hold the request's place in the worker
_NAMES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


@dataclass(frozen=True, slots=True)
class StartLatent:
    """A run starts at `step` from a final `latent` [1, ...]; None = from noise. `reason` is a FetchReason."""

    latent: Tensor | None
    step: int
    reason: str
    fetch_s: float = 0.0


class LatentCache:
    """Whoever opened the store closes it. `not_kept` counts on, number of latents that were not kept by reason."""

    def __init__(self, store: LatentStore, facts: ModelFacts, not_kept: dict[str, int] | None = None) -> None:
        self.own = store if isinstance(store, BoundedStore) else None
        self.not_kept = {} if not_kept is None else not_kept
        self._store = store
        self.health = store.health
        self.facts = facts
        self._aside = LatentsAside(time.monotonic)

    async def fetch(self, job: Job, source: Source, limit_s: float) -> Fetched:
        """The stored run's final latent, or the reason why there is none."""
        return await fetch_latent(self._store, self._key(job, source), limit_s)

    async def keep(self, job: Job, sink: Sink, final: Tensor) -> tuple[StoredLatent, ...]:
        """Store the final latent [1, ...], and return it if the store holds it afterwards.

        Other models of the pool keep none: no level of theirs would start from it.
        """
        if self.facts.model:
            return self._left_out(OTHER_MODEL)
        key = self._key(job, sink)
        data = encode_record(to_record(key, final, sink, self.facts.model_digest))
        try:
            await within(KEEP_LIMIT_S, self._store.put(key, data))
        except Exception as error:  # noqa: BLE001 - the client has its image, whatever the store's library raises
            log.warning("a latent was not kept: %s", str(error) or type(error).__name__)
            return self._left_out(_not_kept_reason(error))
        held = self.own is None or key in self.own
        return (StoredLatent(key.step, len(data)),) if held else ()

    def _left_out(self, reason: str) -> tuple[StoredLatent, ...]:
        self.not_kept[reason] = self.not_kept.get(reason, 0) + 1
        return ()

    def set_aside(self, job: Job, final: Tensor) -> str:
        """Hold the final latent back from the store; `keep_aside` with the id that is returned stores it."""
        return self._aside.add(job, final)

    async def keep_aside(self, held_id: str) -> tuple[StoredLatent, ...]:
        """As `keep`; nothing if it is not there any more."""
        found = self._aside.take(held_id)
        if found is None or found.job.sink is None:
            return ()
        return await self.keep(found.job, found.job.sink, found.final)

    def _key(self, job: Job, entry: Source | Sink) -> LatentKey:
        facts, steps = self.facts, self.facts.num_inference_steps
        model = model_fingerprint(
            facts, job, job.size or facts.size, num_inference_steps=steps, embedder=entry.embedder
        )
        return LatentKey(entry.scope, model, entry.entry_id, steps)


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


def to_start(fetched: Fetched, step: int) -> StartLatent:
    """The fetched latent on the CPU, to start from at `step`; noise if there is none."""
    record = fetched.record
    if record is None:
        return StartLatent(None, 0, fetched.reason)
    raw = torch.frombuffer(bytearray(record.tensor), dtype=_DTYPES[record.dtype])  # a copy that torch may write to
    return StartLatent(raw.view(record.shape), step, fetched.reason)
