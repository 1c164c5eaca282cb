"""Books of a store that this gateway alone writes about: it decides what goes, and deletes it."""

import asyncio
import logging
import time
from collections.abc import Callable

from t2i_cache.catalogue import Catalogue, CatalogueLimits, Deletion, delete_latents, read_store
from t2i_cache.errors import CacheError
from t2i_cache.follow.lists import keep_lists
from t2i_cache.index import Vector
from t2i_cache.keys import LatentKey
from t2i_cache.stores import LatentStore

log = logging.getLogger(__name__)
SWEEP_EVERY_S = 30.0
MAX_PENDING_DELETIONS = 10_000


class OwnBooks:
    """See `Books`. One event loop, one writer."""

    def __init__(self, store: LatentStore, limits: CatalogueLimits, given_up: Callable[[str], None]) -> None:
        self.catalogue = Catalogue(limits)
        self._store = store
        self._given_up = given_up
        self._deletions: asyncio.Queue[Deletion] = asyncio.Queue(MAX_PENDING_DELETIONS)

    def used(self, key: LatentKey) -> None:
        """See `Books`."""
        self.catalogue.record_hit(key, time.time())

    def damaged(self, key: LatentKey) -> None:
        """See `Books`."""
        self._carry_out(self.catalogue.record_damaged(key))

    def stored(self, entry: LatentKey, embedding: Vector, sizes: list[tuple[int, int]]) -> None:
        """See `Books`."""
        self._carry_out(self.catalogue.record_stored(entry, embedding, sizes, time.time()))

    async def restore(self) -> None:
        """See `Books`."""
        try:
            found = await read_store(self._store, lambda _: None)
        except CacheError as error:
            log.warning("the latent store could not be read: %s", error)
            return
        self._carry_out(self.catalogue.restore(found, time.time()))
        if found:
            log.info("%d latents of earlier prompts are back", self.catalogue.num_items)

    async def run(self) -> None:
        """See `Books`: deletions, a sweep for old entries, lists of large shelves."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._delete_forever())
            group.create_task(self._sweep_forever())
            group.create_task(keep_lists(lambda: self.catalogue))

    async def _delete_forever(self) -> None:
        while True:
            await delete_latents(self._store, [await self._deletions.get()])

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            self._carry_out(self.catalogue.expire(time.time()))

    async def close(self) -> None:
        """See `Books`."""
        await self._store.close()

    def _carry_out(self, deletions: list[Deletion]) -> None:
        for deletion in deletions:
            self._given_up(deletion.reason)
            try:
                self._deletions.put_nowait(deletion)
            except asyncio.QueueFull:
                log.warning("too many deletions wait; a latent stays until the next start")
