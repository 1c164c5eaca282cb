"""Following latents that lie with workers, each with its own: the union of what they hold, and who holds what.

The workers decide what goes; they tell what they hold and each change of it (`follow` of their stores). From the moment
that a worker tells of a latent, the worker is known by its name as a holder. That ends when it takes the latent back or
is lost from sight.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from t2i_cache.catalogue import Catalogue
from t2i_cache.follow.lists import keep_lists
from t2i_cache.index import Vector
from t2i_cache.keys import LatentKey
from t2i_cache.stores import StoreLimits
from t2i_policy.eviction import CachedItem

Holdings = Mapping[int, frozenset[str]]  # step -> names of the workers that have its latent


class SpreadFollower:
    """One event loop, one writer."""

    def __init__(self, limits: StoreLimits, given_up: Callable[[str], None]) -> None:
        # Each worker keeps the byte cap and counts uses.
        self.catalogue = Catalogue(StoreLimits(1 << 62, limits.ttl_s, 1 << 62))
        self._given_up = given_up
        self._holders: dict[LatentKey, frozenset[str]] = {}
        self._held: dict[str, set[LatentKey]] = {}

    def holdings(self, entry: LatentKey, steps: Iterable[int]) -> Holdings:
        """Who has the latents of this entry (its step is ignored) at these steps."""
        keys = [LatentKey(entry.scope, entry.model, entry.entry_id, step) for step in steps]
        return {key.step: self._holders[key] for key in keys if key in self._holders}

    def told(self, worker: str, items: Sequence[tuple[CachedItem[LatentKey], Vector]]) -> None:
        """A worker holds these latents, of prompts with these embeddings."""
        self.catalogue.take_in(items)
        held = self._held.setdefault(worker, set())
        for item, _ in items:
            if item.key in self.catalogue:  # else its embedding is no vector of this catalogue
                self._holders[item.key] = self._holders.get(item.key, frozenset()) | {worker}
                held.add(item.key)

    def taken_back(self, worker: str, key: LatentKey, reason: str) -> None:
        """A worker no longer holds this latent."""
        held = self._held.get(worker, set())
        if key in held:
            held.discard(key)
            self._given_up(reason)
            self._drop(worker, key)

    def lost(self, worker: str) -> None:
        """Nobody knows what this worker holds: it went, or tells anew."""
        for key in self._held.pop(worker, set()):
            self._drop(worker, key)

    def _drop(self, worker: str, key: LatentKey) -> None:
        left = self._holders[key] - {worker}
        if left:
            self._holders[key] = left
        else:
            del self._holders[key]
            self.catalogue.note_gone(key)

    def used(self, key: LatentKey) -> None:
        """Nothing to do: the worker counts."""

    def damaged(self, key: LatentKey) -> None:
        """Nothing to do: what one worker misses another may have; `taken_back` says whose it was."""

    def stored(self, entry: LatentKey, embedding: Vector, sizes: list[tuple[int, int]]) -> None:
        """Nothing to do: the worker tells."""

    async def restore(self) -> None:
        """Nothing to do: the workers tell, each when it is reached."""

    async def run(self) -> None:
        await keep_lists(lambda: self.catalogue)

    async def close(self) -> None:
        """The workers' stores are not ours."""
