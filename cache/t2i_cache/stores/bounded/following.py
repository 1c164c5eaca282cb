"""Who follows a store of its own process: everything that is held first, then each change, in their order.

A follower that does not keep up is let go: it must begin anew, so what waits for it is bounded.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field

from t2i_cache.errors import FollowerTooSlow
from t2i_cache.keys import LatentKey
from t2i_cache.stores.bounded.ledger import HeldLatents
from t2i_policy.eviction import EvictionReason

MAX_WAITING = 10_000
BATCH = 32  # entries in one piece of news: with the largest embeddings two mebibytes


@dataclass(frozen=True, slots=True)
class GoneLatent:
    """A latent that is no longer stored, and why."""

    key: LatentKey
    reason: EvictionReason


@dataclass(frozen=True, slots=True)
class LatentNews:
    """What came, then what went. `complete` with the last of what was there at the beginning. Empty: a sign of life."""

    held: tuple[HeldLatents, ...] = ()
    gone: tuple[GoneLatent, ...] = ()
    complete: bool = False


@dataclass(slots=True, eq=False)
class _Follower:
    waiting: deque[HeldLatents | GoneLatent] = field(default_factory=deque)
    some: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False


class Followers:
    """One event loop."""

    def __init__(self) -> None:
        self._all: set[_Follower] = set()

    def tell(self, news: HeldLatents | GoneLatent) -> None:
        for one in self._all:
            one.lost = one.lost or len(one.waiting) >= MAX_WAITING
            if not one.lost:
                one.waiting.append(news)
            one.some.set()

    async def follow(self, held: Iterable[HeldLatents], every_s: float) -> AsyncGenerator[LatentNews, None]:
        """`held` is read before anything else happens. A sign of life comes every `every_s` seconds.

        Raises:
            FollowerTooSlow: too much waits.
        """
        one = _Follower()
        self._all.add(one)
        try:
            there = tuple(held)
            for start in range(0, len(there), BATCH):
                yield LatentNews(there[start : start + BATCH])
            yield LatentNews(complete=True)
            while True:
                if not one.waiting:
                    one.some.clear()
                    await _wait(one.some, every_s)
                if one.lost:
                    raise FollowerTooSlow(f"{MAX_WAITING} changes wait to be read")
                yield _next_news(one.waiting)
        finally:
            self._all.discard(one)


async def _wait(some: asyncio.Event, limit_s: float) -> None:
    try:
        async with asyncio.timeout(limit_s):
            await some.wait()
    except TimeoutError:
        return


def _next_news(waiting: deque[HeldLatents | GoneLatent]) -> LatentNews:
    """Some of what waits, up to where something came after something went: within one piece, what went is newer."""
    held: list[HeldLatents] = []
    gone: list[GoneLatent] = []
    while waiting and len(held) + len(gone) < BATCH:
        if isinstance(waiting[0], HeldLatents) and gone:
            break
        news = waiting.popleft()
        if isinstance(news, HeldLatents):
            held.append(news)
        else:
            gone.append(news)
    return LatentNews(tuple(held), tuple(gone))
