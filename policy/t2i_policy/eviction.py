"""Eviction: which stored latents to give up when the cache is over its byte cap.

Decided from what is known of each stored latent (steps it skips, bytes, hits, times) and the clock. A policy ranks the
latents of all prompts, least worth first. The first of them go until `LOW_WATER` of the cap is used. Latents of one
prompt are judged apart, so holes appear and lookups take the largest stored K' below. It must never free less than
asked while latents remain, and never more than the round needs.

Ours is `steps_at_stake.StepsAtStake`; the known ones stand beside the rivals in the simulator.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

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


class EvictionPolicy(Protocol):
    """What every policy is: a pure order of the stored latents."""

    def ranked(self, prompts: Iterable[Collection[CachedItem[K]]], now_s: float) -> list[CachedItem[K]]:
        """All latents, least worth first; `prompts` holds those of one prompt together, `now_s` is of their clock."""
        ...


def choose_evictions(
    policy: EvictionPolicy,
    prompts: Iterable[Collection[CachedItem[K]]],
    now_s: float,
    used_bytes: int,
    capacity_bytes: int,
) -> tuple[K, ...]:
    """Keys to evict, least worth first, until `LOW_WATER` of the cap is used; empty while under the cap."""
    if used_bytes <= capacity_bytes:
        return ()
    excess = used_bytes - int(capacity_bytes * LOW_WATER)
    chosen: list[K] = []
    for item in policy.ranked(prompts, now_s):
        if excess <= 0:
            break
        chosen.append(item.key)
        excess -= item.size_bytes
    return tuple(chosen)


def choose_marked(
    policy: EvictionPolicy, prompts: Collection[Collection[CachedItem[K]]], now_s: float, share: float
) -> tuple[K, ...]:
    """The least worth `share` of the bytes of these prompts, least worth first: what a shared store should give up
    next. The prompts may be a sample of all; the store takes them in this order, before anything else."""
    total = sum(item.size_bytes for items in prompts for item in items)
    chosen: list[K] = []
    taken = 0
    for item in policy.ranked(prompts, now_s):
        if taken >= share * total:
            break
        chosen.append(item.key)
        taken += item.size_bytes
    return tuple(chosen)
