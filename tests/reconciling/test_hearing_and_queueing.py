"""Hearing, queueing and remembering without an API server: what counts as heard, who is next, and what is news."""

import asyncio
from collections.abc import Callable

import pytest

from t2i_operator import queueing
from t2i_operator.cluster.known import Heard, PoolMemory, slim
from t2i_operator.hearing import DEAF_S, Hearing
from t2i_operator.queueing import PoolQueue

Step = Callable[[Hearing], None]
HEARD = {
    "nothing written, nothing owed": ([], 0.0),
    "a write that was not heard of": ([lambda h: h.wrote("p", "7", 10.0)], 90.0),
    "heard of in that version": ([lambda h: h.wrote("p", "7", 10.0), lambda h: h.heard_of("p", "7")], 0.0),
    "heard of in a later version": ([lambda h: h.wrote("p", "7", 10.0), lambda h: h.heard_of("p", "8")], 0.0),
    "heard of in an earlier version only": ([lambda h: h.wrote("p", "7", 10.0), lambda h: h.heard_of("p", "6")], 90.0),
    "heard of before the answer to the write came": (
        [lambda h: h.heard_of("p", "7"), lambda h: h.wrote("p", "7", 10.0)],
        0.0,
    ),
    "versions that are no numbers count as heard": (
        [lambda h: h.wrote("p", "x", 10.0), lambda h: h.heard_of("p", "y")],
        0.0,
    ),
    "another pool's event says nothing": ([lambda h: h.wrote("p", "7", 10.0), lambda h: h.heard_of("q", "9")], 90.0),
    "written twice: the older one counts": (
        [lambda h: h.wrote("p", "7", 10.0), lambda h: h.wrote("p", "9", 50.0)],
        90.0,
    ),
    "a pool that is gone owes nothing": ([lambda h: h.wrote("p", "7", 10.0), lambda h: h.forget("p")], 0.0),
}


@pytest.mark.parametrize(("steps", "unheard_s"), HEARD.values(), ids=HEARD.keys())
def test_how_long_a_write_was_not_heard_of(steps: list[Step], unheard_s: float) -> None:
    """Asked at 100 s."""
    hearing = Hearing(0.0)
    for step in steps:
        step(hearing)
    assert hearing.unheard_s(100.0) == unheard_s
    assert not hearing.is_deaf(100.0)
    assert hearing.is_deaf(DEAF_S + 11.0) == (unheard_s > 0)


def document(version: str, uid: str = "u1") -> dict[str, object]:
    """A Service."""
    return {"metadata": {"name": "s", "uid": uid, "resourceVersion": version, "managedFields": [1]}, "spec": {"x": 1}}


NEWS = {
    "an object that is not known": (None, Heard("Service", "s", "u1", "5"), True),
    "the echo of our own write": ("5", Heard("Service", "s", "u1", "5"), False),
    "an event from before our write": ("5", Heard("Service", "s", "u1", "4"), False),
    "a later change": ("5", Heard("Service", "s", "u1", "6"), True),
    "another object of the same name": ("5", Heard("Service", "s", "u2", "4"), True),
    "the deletion of what we know": ("5", Heard("Service", "s", "u1", "6", gone=True), True),
    "the deletion of what came before it": ("5", Heard("Service", "s", "u0", "6", gone=True), False),
    "the deletion of what we deleted": (None, Heard("Service", "s", "u1", "6", gone=True), False),
    "a version that is no number": ("5", Heard("Service", "s", "u1", "abc"), True),
}


@pytest.mark.parametrize(("known", "heard", "is_news"), NEWS.values(), ids=NEWS.keys())
def test_what_is_news(known: str | None, heard: Heard, is_news: bool) -> None:
    """Only that makes a look, and only that kind is read again."""
    memory = PoolMemory(stale=set())
    if known is not None:
        memory.objects["Service"] = {"s": document(known)}
    memory.news[heard.kind, heard.name] = heard
    assert memory.to_read() == ({"Service"} if is_news else set())


def test_answer_that_came_since_settles_the_news() -> None:
    """An event may overtake the answer to the write that caused it."""
    memory = PoolMemory(stale=set())
    memory.news["Service", "s"] = Heard("Service", "s", "u1", "5")
    memory.objects["Service"] = {"s": document("5")}
    assert memory.to_read() == set()


def test_what_nobody_reads_is_not_kept() -> None:
    """Memory follows the number of pools: managed fields, and most of a pod."""
    assert slim("Service", document("5")) == {
        "metadata": {"name": "s", "uid": "u1", "resourceVersion": "5"},
        "spec": {"x": 1},
    }
    container = {"name": "worker", "image": "w", "env": [1], "ports": [{"containerPort": 1}]}
    pod = {
        "metadata": {"name": "p"},
        "spec": {"containers": [container], "volumes": []},
        "status": {"phase": "Running"},
    }
    assert slim("Pod", pod)["spec"] == {"containers": [{"name": "worker", "ports": [{"containerPort": 1}]}]}


class Looks:
    """Work that a test lets end; `begun` in order, `together` = the most at the same time."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running: list[str] = []
        self.together = 0
        self.open = asyncio.Event()
        self.changed = asyncio.Condition()
        self.again_s: float | None = None

    async def look(self, key: str) -> float | None:
        self.begun.append(key)
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
        async with asyncio.timeout(5.0), self.changed:
            await self.changed.wait_for(lambda: len(self.begun) >= count)


async def test_pools_are_looked_at_once_each_and_only_so_many_together() -> None:
    """Asked for thrice before its turn: one look."""
    looks = Looks()
    queue = PoolQueue(looks.look, 2)
    for key in ("a", "a", "b", "c", "a"):
        queue.ask(key)
    assert queue.depth == 3
    running = asyncio.create_task(queue.run())
    await looks.until(2)
    looks.open.set()
    await looks.until(3)
    assert looks.begun == ["a", "b", "c"]
    assert looks.together == 2
    running.cancel()


async def test_pool_asked_for_during_its_look_is_looked_at_again_after_the_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that happened is missed, and a burst is one look."""
    monkeypatch.setattr(queueing, "GAP_S", 0.05)
    looks = Looks()
    queue = PoolQueue(looks.look, 4)
    queue.ask("a")
    running = asyncio.create_task(queue.run())
    await looks.until(1)
    began_s = asyncio.get_running_loop().time()
    for _ in range(5):
        queue.ask("a")
    looks.open.set()
    await looks.until(2)
    assert asyncio.get_running_loop().time() - began_s >= 0.04
    assert looks.begun == ["a", "a"]
    running.cancel()


async def test_next_look_comes_by_itself_and_sooner_when_asked() -> None:
    """`work` returns seconds; an event does not wait for them."""
    looks = Looks()
    looks.open.set()
    looks.again_s = 0.01
    queue = PoolQueue(looks.look, 1)
    queue.ask("a")
    running = asyncio.create_task(queue.run())
    await looks.until(2)
    looks.again_s = 3600.0
    await looks.until(3)
    running.cancel()


async def test_pauses_after_failures_grow_to_a_minute_and_begin_anew() -> None:
    """A pool that fails does not fill the log, and one that works again is quick again."""
    queue = PoolQueue(Looks().look, 1)
    pauses = [queue.pause_after_failure("a") for _ in range(9)]
    assert pauses[:3] == [0.5, 1.0, 2.0]
    assert pauses[-1] == 60.0
    assert queue.pause_after_failure("b") == 0.5
    queue.succeeded("a")
    assert queue.pause_after_failure("a") == 0.5


async def test_longest_look_is_known() -> None:
    """Liveness asks for it."""
    looks = Looks()
    queue = PoolQueue(looks.look, 1)
    assert queue.longest_s() == 0.0
    queue.ask("a")
    running = asyncio.create_task(queue.run())
    await looks.until(1)
    assert queue.longest_s() >= 0.0
    assert "a" in looks.running
    running.cancel()
