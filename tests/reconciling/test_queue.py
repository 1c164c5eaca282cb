"""The queue without an API server: who is next, and when."""

import asyncio

import pytest

from t2i_operator import queue
from t2i_operator.queue import PoolQueue


class Looks:
    """Work that a test lets end; `begun` in order, at `begun_s`; `together` = the most at the same time."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.begun_s: list[float] = []
        self.running: list[str] = []
        self.together = 0
        self.open = asyncio.Event()
        self.changed = asyncio.Condition()
        self.again_s: float | None = None

    async def look(self, key: str) -> float | None:
        self.begun.append(key)
        self.begun_s.append(asyncio.get_running_loop().time())
        assert key not in self.running, "two looks at one pool"
        self.running.append(key)
        self.together = max(self.together, len(self.running))
        async with self.changed:
            self.changed.notify_all()
        await self.open.wait()
        self.running.remove(key)
        return self.again_s

    async def until(self, count: int) -> None:
        """That many were begun."""
        async with asyncio.timeout(60.0), self.changed:
            await self.changed.wait_for(lambda: len(self.begun) >= count)


async def test_pools_are_looked_at_once_each_and_only_so_many_together() -> None:
    """Asked for thrice before its turn: one look."""
    looks = Looks()
    pools = PoolQueue(2)
    for key in ("a", "a", "b", "c", "a"):
        pools.ask(key)
    assert pools.depth == 3
    running = asyncio.create_task(pools.run(looks.look))
    await looks.until(2)
    looks.open.set()
    await looks.until(3)
    assert looks.begun == ["a", "b", "c"]
    assert looks.together == 2
    running.cancel()


async def test_pool_asked_for_during_its_look_is_looked_at_again_after_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that happened is missed, and a burst is one look."""
    monkeypatch.setattr(queue, "GAP_S", 0.05)
    looks = Looks()
    pools = PoolQueue(4)
    pools.ask("a")
    running = asyncio.create_task(pools.run(looks.look))
    await looks.until(1)
    for _ in range(5):
        pools.ask("a")
    looks.open.set()
    await looks.until(2)
    assert looks.begun == ["a", "a"]
    first_s, second_s = looks.begun_s
    assert second_s - first_s >= 0.04
    running.cancel()


async def test_next_look_comes_by_itself_and_sooner_when_asked() -> None:
    """`work` returns seconds; an event does not wait for them."""
    looks = Looks()
    looks.open.set()
    looks.again_s = 0.01
    pools = PoolQueue(1)
    pools.ask("a")
    running = asyncio.create_task(pools.run(looks.look))
    await looks.until(2)
    looks.again_s = 3600.0
    await looks.until(3)
    running.cancel()


async def test_pauses_after_failures_grow_to_a_minute_and_begin_anew() -> None:
    """A pool that fails does not fill the log, and one that works again is quick again."""
    pools = PoolQueue(1)
    pauses = [pools.pause_after_failure("a") for _ in range(9)]
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert pauses[-1] == 60.0
    assert pools.pause_after_failure("b") == 0.5
    pools.succeeded("a")
    assert pools.pause_after_failure("a") == 0.5


async def test_longest_look_is_known() -> None:
    """Liveness asks for it."""
    looks = Looks()
    pools = PoolQueue(1)
    assert pools.longest_s() == 0.0
    pools.ask("a")
    running = asyncio.create_task(pools.run(looks.look))
    await looks.until(1)
    assert pools.longest_s() >= 0.0
    assert "a" in looks.running
    running.cancel()
