"""Fetching a latent for a request that wants to skip K steps: the best stored one, within one time limit.

Tries the largest stored step <= K, then smaller ones. Missing, late, corrupt or foreign records cost at most the limit
and end in a smaller K' or in none: the request then starts from noise. A damaged record is deleted. Store trouble never
reaches the caller as an exception; its cancellation does.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from t2i_cache.errors import RecordError, RecordMismatch, StoreError
from t2i_cache.keys import LatentKey
from t2i_cache.records import LatentRecord, decode_record
from t2i_cache.stores import LatentStore

log = logging.getLogger(__name__)
DELETE_LIMIT_S = 0.2


class FetchReason(StrEnum):
    """How the start was found; on the wire as `Started.reason`."""

    AS_REQUESTED = "AsRequested"
    MISSING = "LatentMissing"
    LATE = "LatentLate"
    CORRUPT = "LatentCorrupt"
    MISMATCH = "LatentMismatch"


@dataclass(frozen=True, slots=True)
class Fetched:
    """`record` None = start from noise. `reason` tells of the first trouble on the way, else AS_REQUESTED."""

    record: LatentRecord | None
    reason: FetchReason

    @property
    def step(self) -> int:
        """Steps that can be skipped."""
        return 0 if self.record is None else self.record.key.step


async def fetch_latent(store: LatentStore, start: LatentKey, stored_steps: Iterable[int], limit_s: float) -> Fetched:
    """`start.step` is the K wanted; `stored_steps` the steps believed to be stored for that entry."""
    trouble: FetchReason | None = None
    try:
        async with asyncio.timeout(limit_s):
            for step in sorted({k for k in stored_steps if 0 < k <= start.step}, reverse=True):
                key = LatentKey(start.scope, start.model, start.entry_id, step)
                found = await _try_step(store, key)
                if isinstance(found, LatentRecord):
                    exact = trouble is None and step == start.step
                    return Fetched(found, FetchReason.AS_REQUESTED if exact else trouble or FetchReason.MISSING)
                trouble = trouble or found
    except TimeoutError:
        return Fetched(None, FetchReason.LATE)
    return Fetched(None, trouble or FetchReason.MISSING)


async def _try_step(store: LatentStore, key: LatentKey) -> LatentRecord | FetchReason:
    try:
        data = await store.get(key)
    except StoreError as error:
        log.warning("latent store: %s", error)
        return FetchReason.MISSING
    if data is None:
        return FetchReason.MISSING
    try:
        return decode_record(data, key)
    except RecordError as error:
        log.warning("latent %s of entry %s: %s: %s", key.step, key.entry_id, type(error).__name__, error)
        await _discard(store, key)
        return FetchReason.MISMATCH if isinstance(error, RecordMismatch) else FetchReason.CORRUPT


async def _discard(store: LatentStore, key: LatentKey) -> None:
    try:
        async with asyncio.timeout(DELETE_LIMIT_S):
            await store.delete(key)
    except (StoreError, TimeoutError) as error:
        log.warning("damaged latent could not be deleted: %s", error)
