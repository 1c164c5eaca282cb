"""The queue of pools to look at: each at most once, never twice at the same time, failures with growing pauses.

A pool that is asked for while it is being looked at is looked at again afterwards: nothing that happened is missed.
Looks at one pool begin at least GAP_S apart. So a burst of events (pods that get ready) is one look. And a pool that
changes all the time does not keep others waiting.
"""

import asyncio
from collections.abc import Awaitable, Callable

from t2i_policy.backoff import Backoff

LOOK_BACKOFF = Backoff(first_s=0.5, most_s=60.0)
GAP_S = 0.5
Work = Callable[[str], Awaitable[float | None]]


class PoolQueue:
    """One event loop."""

    def __init__(self, max_parallel: int) -> None:
        self._max_parallel = max_parallel
        self._due: asyncio.Queue[str] = asyncio.Queue()  # bounded by the number of pools: a key is in it once
        self._waiting: set[str] = set()
        self._again: set[str] = set()
        self._started_s: dict[str, float] = {}
        self._last_s: dict[str, float] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        self._loop = asyncio.get_running_loop()

    def ask(self, key: str) -> None:
        """Look at this pool as soon as may be."""
        if key in self._started_s:
            self._again.add(key)
        elif key not in self._waiting:
            wait_s = self._last_s.get(key, -GAP_S) + GAP_S - self._loop.time()
            if wait_s > 0:
                self.ask_later(key, wait_s)
            else:
                self._enqueue(key)

    def _enqueue(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._started_s:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._due.put_nowait(key)

    def ask_later(self, key: str, delay_s: float) -> None:
        """Look at it then, if nobody asks before."""
        if key in self._waiting or key in self._again:
            return
        timer = self._timers.pop(key, None)
        when_s = self._loop.time() + delay_s
        if timer is not None:
            when_s = min(when_s, timer.when())
            timer.cancel()
        self._timers[key] = self._loop.call_at(when_s, self._enqueue, key)

    @property
    def depth(self) -> int:
        """Pools that wait for their turn."""
        return len(self._waiting)

    def longest_s(self) -> float:
        """How long the oldest look has been going on."""
        now_s = self._loop.time()
        return max((now_s - started_s for started_s in self._started_s.values()), default=0.0)

    async def run(self, work: Work) -> None:
        """Work until cancelled. `work` returns the seconds until the next look, None = when asked."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._max_parallel):
                    group.create_task(self._worker(work))
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    async def _worker(self, work: Work) -> None:
        while True:
            key = await self._due.get()
            self._waiting.discard(key)
            self._started_s[key] = self._last_s[key] = self._loop.time()
            try:
                delay_s = await work(key)
            finally:
                del self._started_s[key]
            if key in self._again:
                self._again.discard(key)
                self.ask(key)
            elif delay_s is not None:
                self.ask_later(key, delay_s)
            else:
                self._last_s.pop(key, None)

    def pause_after_failure(self, key: str) -> float:
        """Seconds to wait after one more failure in a row."""
        self._failures[key] = self._failures.get(key, 0) + 1
        return LOOK_BACKOFF.pause_s(self._failures[key])

    def succeeded(self, key: str) -> None:
        """The row of failures has ended."""
        self._failures.pop(key, None)
