"""Fetching the latent that a request resumes from, within one time limit.

A missing, late, corrupt or foreign record costs at most the limit: the request then starts from noise. A damaged record
is deleted. Store trouble never reaches the caller as an exception; its cancellation does.
"""

import logging
from dataclasses import dataclass
from enum import StrEnum

from t2i_cache.errors import RecordError, RecordMismatch, StoreError
from t2i_cache.keys import LatentKey
from t2i_cache.records import LatentRecord, decode_record
from t2i_cache.stores import LatentStore
from t2i_cache.time_limit import within

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
    """`record` None = start from noise; `reason` says why."""

    record: LatentRecord | None
    reason: FetchReason


async def fetch_latent(store: LatentStore, key: LatentKey, limit_s: float) -> Fetched:
    try:
        found = await within(limit_s, _fetch(store, key))
    except TimeoutError:
        return Fetched(None, FetchReason.LATE)
    return Fetched(found, FetchReason.AS_REQUESTED) if isinstance(found, LatentRecord) else Fetched(None, found)


async def _fetch(store: LatentStore, key: LatentKey) -> LatentRecord | FetchReason:
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
        log.warning("latent of entry %s: %s: %s", key.entry_id, type(error).__name__, error)
        await _discard(store, key)
        return FetchReason.MISMATCH if isinstance(error, RecordMismatch) else FetchReason.CORRUPT


async def _discard(store: LatentStore, key: LatentKey) -> None:
    try:
        await within(DELETE_LIMIT_S, store.delete(key))
    except (StoreError, TimeoutError) as error:
        log.warning("damaged latent could not be deleted: %s", error)
