"""Following a shared store: this gateway's catalogue follows the store's stream of changes.

Read everything -> follow the changes since -> on a gap (a stream that was trimmed, a store that was lost) read anew.

Each rebuild fills a catalogue aside and swaps it in: a lookup sees the old one or the new one, whole. Changes are
numbered without gaps, so nothing is missed unseen; reading everything notes the newest change first and follows from
there, and applying a change twice does no harm. What the store holds is decided there: byte cap, TTL and reuse cap hold
in its scripts, whoever is down. A gateway only says which latents are worth least (`_mark`): the store gives up those
first.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from t2i_cache.catalogue import Catalogue
from t2i_cache.errors import StoreError
from t2i_cache.follow.lists import build_due_lists, keep_lists
from t2i_cache.index import Vector
from t2i_cache.keys import EntryName, LatentKey, parse_key
from t2i_cache.stores import StoreLimits
from t2i_cache.stores.redis import RedisStore
from t2i_cache.stores.redis.store import Change, StoredEntry, to_embedding
from t2i_policy.backoff import Backoff
from t2i_policy.eviction import CachedItem, EvictionPolicy, choose_marked
from t2i_policy.steps_at_stake import StepsAtStake

log = logging.getLogger(__name__)
BLOCK_S = 1.0  # how long one read waits for a change; then the store is asked whether it is still the same
RESTORE_WAIT_S = 5.0  # a start waits so long for the first reading, then serves with what is there
RETRIES = Backoff(first_s=0.1, most_s=2.0)
MARK_EVERY_S = 2.0
MARK_FROM = 0.9  # of the byte cap in use
MARK_SHARE = 0.1  # of the sampled bytes
MARK_AGAIN = 0.25  # of the last marks are left
SAMPLED_PROMPTS = 20_000
MAX_PENDING_NOTES = 10_000
PROGRESS_EVERY = 50_000


@dataclass(frozen=True, slots=True)
class Position:
    """How far a catalogue has followed: the store's life, the id and the number of the last change."""

    epoch: str
    change_id: str
    number: int


class SharedFollower:
    """One event loop; the follower is the catalogue's only writer."""

    def __init__(
        self,
        store: RedisStore,
        limits: StoreLimits,
        given_up: Callable[[str], None],
        policy: EvictionPolicy | None = None,
    ) -> None:
        self._limits = StoreLimits(1 << 62, limits.ttl_s, limits.max_reuses)  # the store keeps the byte cap
        self.catalogue = Catalogue(self._limits)
        self.current = asyncio.Event()  # set while the catalogue follows the store
        self._store = store
        self._given_up = given_up
        self._policy: EvictionPolicy = policy or StepsAtStake()
        self._notes: asyncio.Queue[tuple[LatentKey, bool]] = asyncio.Queue(MAX_PENDING_NOTES)
        self._marked = 0

    def used(self, key: LatentKey) -> None:
        """The store counts, for all gateways."""
        self._note(key, damaged=False)

    def damaged(self, key: LatentKey) -> None:
        """Out of this catalogue at once, out of the store soon."""
        self.catalogue.note_gone(key)
        self._note(key, damaged=True)

    def stored(self, entry: LatentKey, embedding: Vector, sizes: list[tuple[int, int]]) -> None:
        """Nothing to do: the store's stream tells every gateway, this one too."""

    async def restore(self) -> None:
        """`run` must be running."""
        try:
            async with asyncio.timeout(RESTORE_WAIT_S):
                await self.current.wait()
        except TimeoutError:
            log.warning("the latent store is not read yet; serving meanwhile")

    async def run(self) -> None:
        """Follow, write what is noted, tidy, lists of large shelves."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_forever())
            group.create_task(self._write_notes())
            group.create_task(self._mark_forever())
            group.create_task(keep_lists(lambda: self.catalogue))

    async def close(self) -> None:
        await self._store.close()

    async def _follow_forever(self) -> None:
        pauses, told = RETRIES.pauses(), ""
        while True:
            try:
                catalogue, position = await self._read_all()
                self.catalogue = catalogue
                self.current.set()
                pauses, told = RETRIES.pauses(), ""
                await self._follow(catalogue, position)
                log.warning("changes of the latent store were missed: reading it anew")
            except (StoreError, ValueError) as error:  # ValueError: somebody else wrote into our keys
                told = _tell_once(told, _why(self._store, error))
                await asyncio.sleep(next(pauses))
            finally:
                self.current.clear()

    async def _read_all(self) -> tuple[Catalogue, Position]:
        """A new catalogue of all that the store holds, and where to follow from."""
        began_s = time.monotonic()
        usage = await self._store.usage()
        newest = await self._store.last_change()
        catalogue, read, told = Catalogue(self._limits), 0, 0
        async for page in self._store.pages():
            catalogue.take_in([item for entry in page for item in _items(entry, time.time())])
            read += len(page)
            if read - told >= PROGRESS_EVERY:
                told = read
                log.info("latent store: %d of about %d prompts read", read, usage.entries)
        while await build_due_lists(catalogue):
            pass
        passed_s = time.monotonic() - began_s
        log.info("latent store: %d prompts, %d latents read in %.1f s", read, catalogue.num_items, passed_s)
        return catalogue, Position(usage.epoch, newest.change_id, newest.number)

    async def _follow(self, catalogue: Catalogue, position: Position) -> None:
        """Apply changes until one is missing."""
        quiet = False
        while True:
            changes = await self._store.read_changes(position.change_id, 0.05 if quiet else BLOCK_S)
            if not changes:
                usage = await self._store.usage()
                same = usage.epoch == position.epoch or not position.epoch
                if not same or (quiet and usage.seq != position.number):
                    return
                quiet = usage.seq != position.number  # one may have come since: look once more
                continue
            quiet = False
            numbers = [change.number for change in changes]
            if numbers != list(range(position.number + 1, position.number + 1 + len(numbers))):
                return
            await self._apply(catalogue, changes)
            position = Position(position.epoch, changes[-1].change_id, numbers[-1])

    async def _apply(self, catalogue: Catalogue, changes: list[Change]) -> None:
        now_s = time.time()
        vectors = await self._vectors(changes)
        for change in changes:
            key = parse_key(change.member)
            if change.kind == "+":
                vector = vectors.get(key.entry)
                if key in catalogue or vector is not None:
                    item = CachedItem(key, key.step, int(change.value), 1, now_s, now_s)
                    catalogue.take_in([(item, vector if vector is not None else _NO_VECTOR)])
            elif change.kind == "u":
                catalogue.note_use(key, int(change.value), now_s)
            else:
                catalogue.note_gone(key)
                self._given_up(change.value)

    async def _vectors(self, changes: list[Change]) -> dict[EntryName, Vector]:
        """Embeddings of entries that are new; those that have gone meanwhile are left out."""
        keys = [parse_key(change.member) for change in changes if change.kind == "+"]
        names = list(dict.fromkeys(key.entry for key in keys))
        if not names:
            return {}
        stored = await self._store.entries(names)
        return {name: to_embedding(data) for name, data in zip(names, stored, strict=True) if data}

    def _note(self, key: LatentKey, damaged: bool) -> None:
        try:
            self._notes.put_nowait((key, damaged))
        except asyncio.QueueFull:
            log.warning("the latent store is slow: a use is not counted")

    async def _write_notes(self) -> None:
        while True:
            key, damaged = await self._notes.get()
            try:
                if damaged:
                    await self._store.delete(key)
                else:
                    await self._store.count_use(key)
            except StoreError as error:
                log.debug("a use was not counted: %s", error)

    async def _mark_forever(self) -> None:
        while True:
            await asyncio.sleep(MARK_EVERY_S)
            try:
                await self._store.expire()
                await self._mark()
            except StoreError as error:
                log.debug("the latent store was not tidied: %s", error)

    async def _mark(self) -> None:
        """Tell the store which latents are worth least, while it is nearly full and few are marked."""
        usage = await self._store.usage()
        full = usage.used_bytes >= MARK_FROM * self._store.limits.capacity_bytes
        if not full or usage.marked > MARK_AGAIN * self._marked:
            return
        prompts = self.catalogue.sample(SAMPLED_PROMPTS, random.Random())
        keys = await asyncio.to_thread(choose_marked, self._policy, prompts, time.time(), MARK_SHARE)
        await self._store.mark(keys)
        self._marked = len(keys)


def _why(store: RedisStore, error: Exception) -> str:
    """The trouble in words that stay while it lasts, or what is wrong with what was read."""
    trouble = store.health.trouble
    return trouble.message if trouble is not None else str(error)


def _tell_once(told: str, why: str) -> str:
    """One line of log for a reason, however long it lasts."""
    if why != told:
        log.warning("the latent store cannot be followed: %s", why)
    return why


_NO_VECTOR = to_embedding(b"")


def _items(entry: StoredEntry, now_s: float) -> list[tuple[CachedItem[LatentKey], Vector]]:
    if not entry.embedding.size:
        return []
    items = []
    for item in entry.items:
        key = LatentKey(entry.scope, entry.model, entry.entry_id, item.step)
        born_s = now_s - item.age_s
        items.append((CachedItem(key, item.step, item.size_bytes, item.uses, born_s, born_s), entry.embedding))
    return items
