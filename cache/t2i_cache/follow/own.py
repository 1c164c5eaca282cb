"""Following a store that this gateway alone writes about: it decides what goes, and deletes it."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from t2i_cache.catalogue import Catalogue, Deletion
from t2i_cache.errors import CacheError, RecordError, StoreError
from t2i_cache.follow.lists import keep_lists
from t2i_cache.index import Vector
from t2i_cache.keys import LatentKey
from t2i_cache.records import LatentRecord, read_any
from t2i_cache.stores import LatentStore, StoreLimits

log = logging.getLogger(__name__)
SWEEP_EVERY_S = 30.0
DELETE_LIMIT_S = 5.0
MAX_PENDING_DELETIONS = 10_000


class OwnFollower:
    """One event loop, one writer."""

    def __init__(self, store: LatentStore, limits: StoreLimits, given_up: Callable[[str], None]) -> None:
        self.catalogue = Catalogue(limits)
        self._store = store
        self._given_up = given_up
        self._deletions: asyncio.Queue[Deletion] = asyncio.Queue(MAX_PENDING_DELETIONS)

    def used(self, key: LatentKey) -> None:
        self.catalogue.record_hit(key, time.time())

    def damaged(self, key: LatentKey) -> None:
        self._carry_out(self.catalogue.record_damaged(key))

    def stored(self, entry: LatentKey, embedding: Vector, sizes: list[tuple[int, int]]) -> None:
        self._carry_out(self.catalogue.record_stored(entry, embedding, sizes, time.time()))

    async def restore(self) -> None:
        try:
            found = await read_store(self._store)
        except CacheError as error:
            log.warning("the latent store could not be read: %s", error)
            return
        self._carry_out(self.catalogue.restore(found, time.time()))
        if found:
            log.info("%d latents of earlier prompts are back", self.catalogue.num_items)

    async def run(self) -> None:
        """Deletions, a sweep for old entries, lists of large shelves."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._delete_forever())
            group.create_task(self._sweep_forever())
            group.create_task(keep_lists(lambda: self.catalogue))

    async def _delete_forever(self) -> None:
        while True:
            await delete_latent(self._store, (await self._deletions.get()).key)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            self._carry_out(self.catalogue.expire(time.time()))

    async def close(self) -> None:
        await self._store.close()

    def _carry_out(self, deletions: list[Deletion]) -> None:
        for deletion in deletions:
            self._given_up(deletion.reason)
            try:
                self._deletions.put_nowait(deletion)
            except asyncio.QueueFull:
                log.warning("too many deletions wait; a latent stays until the next start")


async def read_store(store: LatentStore) -> list[tuple[LatentRecord, int]]:
    """Every sound record of a store with its size, tensors left out; damaged ones are deleted, trouble is logged."""
    found: list[tuple[LatentRecord, int]] = []
    async for key, size in store.scan():
        try:
            data = await store.get(key)
            if data is not None:
                found.append((replace(read_any(data), tensor=b""), size))
        except RecordError as error:
            log.warning("damaged latent deleted: %s", error)
            await store.delete(key)
        except StoreError as error:
            log.warning("latent left out: %s", error)
    return found


async def delete_latent(store: LatentStore, key: LatentKey) -> None:
    """Within a time limit; what fails stays as an orphan file and is found at the next start."""
    try:
        async with asyncio.timeout(DELETE_LIMIT_S):
            await store.delete(key)
    except (StoreError, TimeoutError) as error:
        log.warning("a latent could not be deleted: %s", error)
