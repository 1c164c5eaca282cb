"""A folder of latents that one process has to itself, bounded by that process.

The process that writes the bytes is the one that counts them: before a latent is written, others go until it fits
below the capacity as the disk counts (`ledger`). So the folder is under its capacity at every moment, also while the
temporary file of a record lies there. TTL and uses hold at each read, and a sweep deletes what is past them. At its
start the store reads all that lies there: latents are taken over with their uses, everything else is removed.

A disk that is full below the capacity makes room in the same way, once; then the latent is not kept. What comes and
goes is told to whoever follows (`follow`), so that gateways know what lies here.

One event loop. Writes come one after another; a caller that gives up leaves no file behind that is not counted.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from t2i_cache.errors import RecordError, StoreError, StoreFull, StoreUnavailable
from t2i_cache.keys import LatentKey
from t2i_cache.records import read_any
from t2i_cache.stores.bounded.following import Followers, GoneLatent, LatentNews
from t2i_cache.stores.bounded.ledger import Ledger
from t2i_cache.stores.protocol import FoundLatent, OwnedStore, StoreLimits
from t2i_policy.eviction import EvictionReason

log = logging.getLogger(__name__)
SWEEP_EVERY_S = 5.0


@dataclass(slots=True)
class StoreTally:
    """What a bounded store counted since its start: latents that went, by reason, and how often the disk was full."""

    gone: Counter[EvictionReason] = field(default_factory=Counter)
    times_full: int = 0


class BoundedStore:
    """`open` before anything else."""

    def __init__(self, inner: OwnedStore, limits: StoreLimits, clock: Callable[[], float] = time.time) -> None:
        self.tally = StoreTally()
        self.health = inner.health
        self._inner = inner
        self._clock = clock
        self._ledger = Ledger(limits, 0)
        self._in_stock = False  # what lies there is known
        self._followers = Followers()
        self._writing = asyncio.Lock()
        self._writes: set[asyncio.Task[None]] = set()
        self._sweeping: asyncio.Task[None] | None = None

    @property
    def used_bytes(self) -> int:
        """What the folder takes of the disk."""
        return self._ledger.used_bytes

    @property
    def num_entries(self) -> int:
        return self._ledger.num_entries

    async def open(self) -> None:
        """Take over what lies there, or try again later: a broken disk keeps no worker from serving."""
        await self._try_to_take_stock()
        self._sweeping = asyncio.create_task(self._sweep_forever())

    async def _try_to_take_stock(self) -> None:
        try:
            await self._take_stock()
        except StoreError as error:
            log.warning("the latent store cannot be opened, so nothing is kept: %s", error)

    async def _take_stock(self) -> None:
        """Sound latents within their time, their uses and the capacity stay. The rest goes."""
        self._ledger = Ledger(self._ledger.limits, await self._inner.block_bytes())
        found = await self._inner.tidy()
        for latent in found:
            await self._take_over(latent)
        for key, reason in self._ledger.all_due(self._clock()):
            await self._give_up(key, reason)
        for key in self._ledger.choose(0, self._clock()):
            await self._give_up(key, EvictionReason.CAPACITY)
        if found:
            log.info("%d prompts have latents from before, in %d bytes", self.num_entries, self.used_bytes)
        self._in_stock = True
        for held in self._ledger:
            self._followers.tell(held)

    async def get(self, key: LatentKey) -> bytes | None:
        """Counts as a use; None past the latent's time or uses."""
        item = self._ledger.get(key)
        if item is None or self._ledger.due(item, self._clock()) is not None:
            return None
        data = await self._inner.get(key)
        if data is None:
            await self.delete(key)  # somebody else took it away
            return None
        now_s = self._clock()
        used = self._ledger.note_use(key, now_s)
        if used is None:
            return data
        worn = self._ledger.due(used, now_s)
        if worn is not None:
            await self._alone(self._give_up(key, worn))
        else:
            await self._note(key, used.hits, now_s)
        return data

    async def put(self, key: LatentKey, data: bytes) -> None:
        """Others go before it is written.

        Raises:
            StoreFull: it is larger than all there may be, or the disk is full although room was made.
            RecordError: it is no record.
        """
        if not self._in_stock:
            raise StoreUnavailable("the latent store could not be opened yet")
        await self._alone(self._put(key, data))

    async def delete(self, key: LatentKey) -> None:
        """Who deletes found it damaged."""
        await self._alone(self._give_up(key, EvictionReason.DAMAGED))

    async def scan(self) -> AsyncIterator[tuple[LatentKey, int]]:
        for held in list(self._ledger):
            for item in held.items:
                yield item.key, item.size_bytes

    async def check(self) -> None:
        await self._inner.check()

    def __contains__(self, key: LatentKey) -> bool:
        return self._ledger.get(key) is not None

    def follow(self, every_s: float) -> AsyncGenerator[LatentNews, None]:
        """All that is held, then each change, and at least every so many seconds that nothing changed."""
        return self._followers.follow(iter(self._ledger), every_s)

    async def close(self) -> None:
        """What is being written is finished first."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._sweeping
        async with self._writing:
            await self._inner.close()

    async def _take_over(self, latent: FoundLatent) -> None:
        data = await self._inner.get(latent.key)
        try:
            record = read_any(data or b"")
            if record.key == latent.key:
                self._ledger.add(replace(record, tensor=b""), latent.size_bytes, latent.uses, latent.used_s)
                return
            log.warning("a latent in another's place is removed")
        except RecordError as error:
            log.warning("a damaged latent is removed: %s", error)
        await self._inner.delete(latent.key)

    async def _put(self, key: LatentKey, data: bytes) -> None:
        record = replace(read_any(data), key=key, tensor=b"")
        if not self._ledger.fits_alone(key, len(data)):
            raise StoreFull("one latent is larger than the capacity of the latent store")
        await self._make_room(key, len(data))
        try:
            await self._inner.put(key, data)
        except StoreFull:
            self.tally.times_full += 1
            log.warning("the disk of the latent store is full: others go")
            await self._make_room(key, len(data), disk_full=True)
            await self._inner.put(key, data)
        now_s = self._clock()
        self._ledger.add(record, len(data), 1, now_s)
        held = self._ledger.held(key)
        if held is not None:
            self._followers.tell(held)
        await self._note(key, 1, now_s)

    async def _make_room(self, key: LatentKey, size_bytes: int, disk_full: bool = False) -> None:
        """Until a file of this size fits. In a thread, as a large store takes long to rank; nobody else writes."""
        while True:
            coming = self._ledger.added_bytes(key, size_bytes)
            going = await asyncio.to_thread(self._ledger.choose, coming, self._clock(), disk_full)
            for one in going:
                await self._give_up(one, EvictionReason.CAPACITY)
            if disk_full or not going:
                return

    async def _give_up(self, key: LatentKey, reason: EvictionReason) -> None:
        """Bytes first: what cannot be deleted still counts."""
        await self._inner.delete(key)
        if self._ledger.remove(key):
            self.tally.gone[reason] += 1
            self._followers.tell(GoneLatent(key, reason))

    async def _note(self, key: LatentKey, uses: int, now_s: float) -> None:
        """After a restart it would count as less used; that is no reason to do without it."""
        try:
            await self._inner.note_uses(key, uses, now_s)
        except StoreError as error:
            log.warning("a use of a latent is not remembered: %s", error)

    async def _sweep_forever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            if not self._in_stock:
                await self._try_to_take_stock()
            try:
                await self.sweep()
            except StoreError as error:
                log.warning("latents that are due stay: %s", error)

    async def sweep(self) -> None:
        """Delete what is past its time or its uses."""
        for key, reason in self._ledger.all_due(self._clock()):
            await self._alone(self._give_up(key, reason))

    async def _alone(self, write: Coroutine[Any, Any, None]) -> None:
        """One write at a time, each to its end even if its caller gives up: half a write would not be counted."""
        try:
            await self._writing.acquire()
        except BaseException:
            write.close()
            raise
        task = asyncio.create_task(write)
        self._writes.add(task)
        task.add_done_callback(self._written)
        await asyncio.shield(task)

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        self._writing.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("a write to the latent store failed: %s", error)
