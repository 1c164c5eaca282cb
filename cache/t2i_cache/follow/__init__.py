"""Who keeps the catalogue true: `own` where this gateway is the store's only writer, `shared` where many write,
`spread` where each worker keeps its own.

All are the shell around one `Catalogue`: clock, store, queues, background work.
"""

from collections.abc import Callable
from typing import Protocol

from t2i_cache.catalogue import Catalogue
from t2i_cache.follow.own import OwnFollower
from t2i_cache.follow.shared import SharedFollower
from t2i_cache.follow.spread import Holdings, SpreadFollower
from t2i_cache.index import Vector
from t2i_cache.keys import LatentKey
from t2i_cache.stores import LatentStore, RedisStore, StoreLimits

Given = Callable[[str], None]


class CatalogueFollower(Protocol):
    """The catalogue of one store. Nothing here raises for a store in trouble."""

    @property
    def catalogue(self) -> Catalogue:
        """What is known now; another one after a rebuild, so ask each time."""

    def used(self, key: LatentKey) -> None:
        """A request started from this latent."""

    def damaged(self, key: LatentKey) -> None:
        """A reader found this latent missing, corrupt or foreign."""

    def stored(self, entry: LatentKey, embedding: Vector, sizes: list[tuple[int, int]]) -> None:
        """A worker stored (step, bytes) latents of this entry.

        Raises:
            ValueError: the embedding is no vector of this catalogue.
        """

    async def restore(self) -> None:
        """Take in what the store holds from an earlier life, for a bounded time; `run` must be running."""

    async def run(self) -> None:
        """What goes on in the background, until cancelled."""

    async def close(self) -> None:
        """Close the store."""


def open_follower(store: LatentStore, limits: StoreLimits, given_up: Given) -> CatalogueFollower:
    """The follower that fits the store; `given_up` hears the reason of each latent that goes."""
    if isinstance(store, RedisStore):
        return SharedFollower(store, limits, given_up)
    return OwnFollower(store, limits, given_up)


__all__ = ["CatalogueFollower", "Holdings", "OwnFollower", "SharedFollower", "SpreadFollower", "open_follower"]
