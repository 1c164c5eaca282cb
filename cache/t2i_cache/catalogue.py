"""The catalogue: which prompts have which latents, how often they helped, and what must go.

One per gateway, single writer. It holds no tensors: only embeddings, hits, sizes and times, so it is rebuilt from the
store after a restart. Of a store of its own it decides what must go, by the eviction policy it is made with. Deletions
come back as a list for the shell to carry out, and an item counts as gone at once. Of a shared store it only notes what
the store says: `take_in`, `note_use`, `note_gone`.
"""

import logging
import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from t2i_cache.index import PromptIndex, Vector
from t2i_cache.keys import LatentKey
from t2i_cache.records import LatentRecord
from t2i_cache.stores import StoreLimits
from t2i_policy.eviction import CachedItem, EvictionPolicy, EvictionReason, choose_evictions
from t2i_policy.steps_at_stake import StepsAtStake

log = logging.getLogger(__name__)
NEAR_EQUAL = 0.005  # similarity within which candidates are drawn from at random (arXiv 2508.20424's advice)
CANDIDATES = 4


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The nearest cached prompt of one scope: its cosine, and the steps whose latents are stored."""

    entry_id: str
    similarity: float
    steps: frozenset[int]


@dataclass(frozen=True, slots=True)
class Deletion:
    """One latent to delete from the store, and why."""

    key: LatentKey
    reason: EvictionReason


@dataclass(slots=True)
class _Shelf:
    """All entries of one (scope, model)."""

    index: PromptIndex
    steps: dict[str, dict[int, CachedItem[LatentKey]]] = field(default_factory=dict)


class Catalogue:
    """Times are seconds of the caller's wall clock (records carry it across restarts)."""

    def __init__(self, limits: StoreLimits, eviction: EvictionPolicy | None = None) -> None:
        self._limits = limits
        self._eviction: EvictionPolicy = eviction or StepsAtStake()
        self._shelves: dict[tuple[str, str], _Shelf] = {}
        self._bytes = 0
        self._items = 0

    @property
    def used_bytes(self) -> int:
        """Bytes of all latents believed to be stored."""
        return self._bytes

    @property
    def num_items(self) -> int:
        """Stored latents, each (prompt, step) counted."""
        return self._items

    @property
    def num_entries(self) -> int:
        """Prompts with at least one stored latent."""
        return sum(len(shelf.steps) for shelf in self._shelves.values())

    def nearest(self, scope: str, model: str, embedding: Vector, now_s: float, draw: float = 0.0) -> Neighbour | None:
        """The most similar living entry of this scope and model; `draw` in [0, 1) picks among near-equal ones."""
        shelf = self._shelves.get((scope, model))
        if shelf is None:
            return None
        living = []
        for match in shelf.index.nearest(embedding, CANDIDATES):
            steps = self._living_steps(shelf, match.entry_id, now_s)
            if steps:
                living.append(Neighbour(match.entry_id, match.similarity, steps))
        near = [n for n in living if n.similarity >= living[0].similarity - NEAR_EQUAL]
        return near[int(draw * len(near))] if near else None

    def find(self, entry: LatentKey, now_s: float) -> Neighbour | None:
        """This very entry (its step is ignored) at a similarity of 1, if latents of it live."""
        shelf = self._shelves.get((entry.scope, entry.model))
        steps = frozenset[int]() if shelf is None else self._living_steps(shelf, entry.entry_id, now_s)
        return Neighbour(entry.entry_id, 1.0, steps) if steps else None

    def __contains__(self, entry: LatentKey) -> bool:
        """Whether latents of this entry (its step is ignored) are known."""
        shelf = self._shelves.get((entry.scope, entry.model))
        return shelf is not None and entry.entry_id in shelf.steps

    def take_in(self, items: Sequence[tuple[CachedItem[LatentKey], Vector]]) -> None:
        """Note what a shared store holds: items with the embedding of their prompt; many at once are cheaper."""
        by_shelf: dict[tuple[str, str], dict[str, Vector]] = {}
        for item, embedding in items:
            by_shelf.setdefault((item.key.scope, item.key.model), {})[item.key.entry_id] = embedding
        refused = set[str]()
        for (scope, model), named in by_shelf.items():
            shelf = self._shelf(scope, model, next(iter(named.values())))
            new = {name: vector for name, vector in named.items() if name not in shelf.index}
            refused |= _extend(shelf.index, new)
        for item, _ in items:
            if item.key.entry_id not in refused:
                self._put(item)

    def note_use(self, key: LatentKey, uses: int, now_s: float) -> None:
        """A shared store counted a use of this latent."""
        item = self._item(key)
        if item is not None:
            self._shelves[key.scope, key.model].steps[key.entry_id][key.step] = replace(item, hits=uses, used_s=now_s)

    def note_gone(self, key: LatentKey) -> None:
        """A shared store no longer has this latent."""
        self._forget(key, whole=True)

    def sample(self, most: int, draw: random.Random) -> list[Collection[CachedItem[LatentKey]]]:
        """The items of up to about `most` prompts, drawn evenly; of all, if there are no more."""
        share = min(1.0, most / max(1, self.num_entries))
        found: list[Collection[CachedItem[LatentKey]]] = []
        for shelf in self._shelves.values():
            names = shelf.index.sample(round(share * len(shelf.steps)) if share < 1.0 else len(shelf.steps), draw)
            found += [tuple(shelf.steps[name].values()) for name in names if name in shelf.steps]
        return found

    def index_that_wants_lists(self) -> PromptIndex | None:
        """One that has outgrown exact search, or its lists."""
        return next((shelf.index for shelf in self._shelves.values() if shelf.index.wants_lists), None)

    def record_hit(self, key: LatentKey, now_s: float) -> None:
        """A request started from this latent."""
        item = self._item(key)
        if item is not None:
            self.note_use(key, item.hits + 1, now_s)

    def record_stored(
        self, entry: LatentKey, embedding: Vector, stored: Iterable[tuple[int, int]], now_s: float
    ) -> list[Deletion]:
        """A worker stored (step, bytes) latents of `entry` (its step is ignored). Returns what must go for them."""
        sizes = list(stored)
        if not sizes:
            return []
        self._shelf(entry.scope, entry.model, embedding).index.add(entry.entry_id, embedding)
        for step, size in sizes:
            self._put(CachedItem(replace(entry, step=step), step, size, 1, now_s, now_s))
        return self._make_room(now_s)

    def record_damaged(self, key: LatentKey) -> list[Deletion]:
        """A reader found this latent missing, corrupt or foreign."""
        return self._drop([key], EvictionReason.DAMAGED)

    def expire(self, now_s: float) -> list[Deletion]:
        """Give up latents past their TTL or their reuse cap; call it now and then (lookups pass them over anyway)."""
        old = [item.key for item in self._all() if now_s - item.stored_s > self._limits.ttl_s]
        worn = [item.key for item in self._all() if item.hits > self._limits.max_reuses]
        return self._drop(old, EvictionReason.EXPIRED) + self._drop(worn, EvictionReason.WORN_OUT)

    def restore(self, records: Iterable[tuple[LatentRecord, int]], now_s: float) -> list[Deletion]:
        """Take in records found in the store (with their sizes), oldest rules applied: TTL and byte cap."""
        gone: list[Deletion] = []
        for record, size in records:
            created_s = min(record.created_s, now_s)
            self._add_restored(record, size, created_s)
        gone += self.expire(now_s)
        return gone + self._make_room(now_s)

    def _add_restored(self, record: LatentRecord, size: int, created_s: float) -> None:
        shelf = self._shelf(record.key.scope, record.key.model, record.embedding)
        try:
            shelf.index.add(record.key.entry_id, record.embedding)
        except ValueError as error:
            log.warning("stored latent of entry %s left out: %s", record.key.entry_id, error)
            return
        self._put(CachedItem(record.key, record.key.step, size, 1, created_s, created_s))

    def _shelf(self, scope: str, model: str, embedding: Vector) -> _Shelf:
        shelf = self._shelves.get((scope, model))
        if shelf is None:
            shelf = self._shelves[scope, model] = _Shelf(PromptIndex(int(np.size(embedding))))
        return shelf

    def _item(self, key: LatentKey) -> CachedItem[LatentKey] | None:
        shelf = self._shelves.get((key.scope, key.model))
        return shelf.steps.get(key.entry_id, {}).get(key.step) if shelf else None

    def _put(self, item: CachedItem[LatentKey]) -> None:
        """Into the catalogue, in place of what was there; its entry is in the index."""
        self._forget(item.key)
        self._shelves[item.key.scope, item.key.model].steps.setdefault(item.key.entry_id, {})[item.key.step] = item
        self._bytes += item.size_bytes
        self._items += 1

    def _living_steps(self, shelf: _Shelf, entry_id: str, now_s: float) -> frozenset[int]:
        items = shelf.steps.get(entry_id, {})
        return frozenset(step for step, item in items.items() if self._lives(item, now_s))

    def _lives(self, item: CachedItem[LatentKey], now_s: float) -> bool:
        return now_s - item.stored_s <= self._limits.ttl_s and item.hits <= self._limits.max_reuses

    def _all(self) -> list[CachedItem[LatentKey]]:
        return [i for shelf in self._shelves.values() for steps in shelf.steps.values() for i in steps.values()]

    def _make_room(self, now_s: float) -> list[Deletion]:
        if self._bytes <= self._limits.capacity_bytes:
            return []
        prompts = [steps.values() for shelf in self._shelves.values() for steps in shelf.steps.values()]
        keys = choose_evictions(self._eviction, prompts, now_s, self._bytes, self._limits.capacity_bytes)
        return self._drop(keys, EvictionReason.CAPACITY)

    def _drop(self, keys: Sequence[LatentKey], reason: EvictionReason) -> list[Deletion]:
        return [Deletion(key, reason) for key in keys if self._forget(key, whole=True)]

    def _forget(self, key: LatentKey, whole: bool = False) -> bool:
        """Take one item out of the catalogue; with `whole`, an entry without items leaves the index too."""
        shelf = self._shelves.get((key.scope, key.model))
        steps = shelf.steps.get(key.entry_id, {}) if shelf else {}
        item = steps.pop(key.step, None)
        if shelf is None or item is None:
            return False
        self._bytes -= item.size_bytes
        self._items -= 1
        if whole and not steps:
            del shelf.steps[key.entry_id]
            shelf.index.remove(key.entry_id)
        return True


def _extend(index: PromptIndex, named: dict[str, Vector]) -> set[str]:
    """Add all; if one of them is no vector of this index, one by one. The names that were refused."""
    sizes = {vector.size for vector in named.values()}
    if len(sizes) == 1:
        try:
            index.extend(list(named), np.stack(list(named.values())))
            return set()
        except ValueError:
            log.warning("an embedding among %d is damaged", len(named))
    refused = set[str]()
    for name, vector in named.items():
        try:
            index.add(name, vector)
        except ValueError as error:
            log.warning("stored latents of entry %s left out: %s", name, error)
            refused.add(name)
    return refused
