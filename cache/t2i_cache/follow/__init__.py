"""Who keeps the catalogue true: `own` where this gateway is the store's only writer, `shared` where many write,
`spread` where each worker keeps its own.

All are the shell around one `Catalogue`: clock, store, queues, background work.
"""

from collections.abc import Callable
from typing import Protocol

from t2i_cache.catalogue import Catalogue, CatalogueLimits
from t2i_cache.follow.own import OwnBooks
from t2i_cache.follow.shared import SharedBooks
from t2i_cache.follow.spread import Holdings, SpreadBooks
from t2i_cache.index import Vector
from t2i_cache.keys import LatentKey
from t2i_cache.stores import LatentStore, RedisStore

Given = Callable[[str], None]


class Books(Protocol):
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


def open_books(store: LatentStore, limits: CatalogueLimits, given_up: Given) -> Books:
    """The books that fit the store; `given_up` hears the reason of each latent that goes."""
    if isinstance(store, RedisStore):
        return SharedBooks(store, limits, given_up)
    return OwnBooks(store, limits, given_up)


__all__ = ["Books", "Holdings", "OwnBooks", "SharedBooks", "SpreadBooks", "open_books"]
