"""Eviction: which stored latents to give up when the cache is over its byte cap.

LCBFU, least computationally beneficial and frequently used (NIRVANA, arXiv 2312.04429): each (prompt, K) item is worth
the steps it saves times how often it was used; the least worth goes first. Items of one prompt are judged apart, so
holes appear and lookups take the largest stored K' below.

    score = hits x K        hits start at 1, so a new item competes as if it had been used once

Ties go to the item used longest ago, then stored longest ago. It must never free less than asked while items remain.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

K = TypeVar("K")
LOW_WATER = 0.95  # evict down to this share of the cap, so that a full cache does not sort at every insert


class EvictionReason(StrEnum):
    """Why an item goes."""

    CAPACITY = "Capacity"
    EXPIRED = "Expired"
    WORN_OUT = "WornOut"  # reached the reuse cap
    PURGED = "Purged"
    DAMAGED = "Damaged"  # a reader found it missing, corrupt or foreign


@dataclass(frozen=True, slots=True)
class CachedItem(Generic[K]):
    """One stored latent: `skipped_steps` K it lets a request skip, `hits` >= 1, times in seconds of one clock."""

    key: K
    skipped_steps: int
    size_bytes: int
    hits: int
    stored_s: float
    used_s: float


def lcbfu_score(item: CachedItem[K]) -> int:
    """Steps this item is expected to save: hits x K."""
    return item.hits * item.skipped_steps


def choose_evictions(items: Iterable[CachedItem[K]], used_bytes: int, capacity_bytes: int) -> tuple[K, ...]:
    """Keys to evict, least worth first, until `LOW_WATER` of the cap is used; empty while under the cap."""
    if used_bytes <= capacity_bytes:
        return ()
    excess = used_bytes - int(capacity_bytes * LOW_WATER)
    chosen: list[K] = []
    for item in sorted(items, key=lambda item: (lcbfu_score(item), item.used_s, item.stored_s)):
        if excess <= 0:
            break
        chosen.append(item.key)
        excess -= item.size_bytes
    return tuple(chosen)
