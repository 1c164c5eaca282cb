"""The operator dies after every single write, and the API server misbehaves: the end is as if nothing had happened.

Oracles (Sieve's): the end state of all objects, and how often each was created and deleted, equal the undisturbed run.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kube_fixtures import fresh_namespace
from operator_stories import (
    OTHER_MIX,
    Supervisor,
    change_mix,
    create,
    delete,
    levels,
    ready,
    resize,
    settled,
    state,
    supervised,
    upgrade,
)
from operator_world import World
from t2i_operator import handlers
from t2i_testing_kit.kube.proxy import ApiFault, FaultProxy
from t2i_testing_kit.kube.server import KubeServer

Story = Callable[[World, Supervisor], Awaitable[None]]


async def run(kube: KubeServer, before: tuple[Story, ...], story: Story, fault: Any) -> tuple[str, Counter[str], int]:
    """End state, counts of CREATE and DELETE, writes; of the story alone, `before` runs undisturbed."""
    world = World(kube, await asyncio.to_thread(fresh_namespace, kube))
    async with FaultProxy(kube) as proxy, supervised(world, proxy) as supervisor:
        for earlier in before:
            await earlier(world, supervisor)
        first = len(proxy.record.writes)
        proxy.choose = fault(proxy.asked) if fault else lambda _: None
        await story(world, supervisor)
        await settled(world, proxy)
        proxy.choose = lambda _: None
        counts = Counter(f"CREATE {path}" for path in proxy.record.created)
        counts += Counter(f"DELETE {path}" for path in proxy.record.deleted)
        plain = Counter({re.sub(world.namespace, "NS", key): number for key, number in counts.items()})
        plain["kills"] = supervisor.kills
        return await state(world), plain, len(proxy.record.writes) - first


def kill_after(number: int) -> Any:
    """Kill once, after the `number`-th write of the story."""

    return lambda asked: lambda write: ApiFault.KILL_AFTER if write.order - asked == number else None


STORIES: dict[str, tuple[tuple[Story, ...], Story]] = {
    "create": ((), create),
    "resize": ((create,), resize),
    "mix change": ((create,), change_mix),
    "upgrade": ((create,), upgrade),
    "delete": ((create,), delete),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", STORIES)
async def test_killed_after_any_write(kube: KubeServer, name: str, record_property: Any) -> None:
    """O1: for every i, the operator is killed after its i-th write and started anew."""
    before, story = STORIES[name]
    reference, counts, writes = await run(kube, before, story, None)
    for number in range(1, writes + 1):
        end, disturbed, written = await run(kube, before, story, kill_after(number))
        # Two status writes may come as one when the machine is slow; then there is no such write to be killed after.
        killed = disturbed.pop("kills", 0)
        assert killed == 1 or written < number, f"{name}: not killed after write {number} of {writes}"
        once = counts - Counter({"kills": counts["kills"]})
        assert disturbed == once, f"{name}, killed after {number}: {disturbed - once} more, {once - disturbed} less"
        assert end == reference, f"{name}, killed after write {number}: another end"
    record_property("writes", writes)


def first_attempts(kind: ApiFault, every: int = 1) -> Any:
    """The fault on the first attempt of every so many writes."""

    return lambda _: lambda write: kind if write.attempt == 1 and write.number % every == 0 else None


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("fault", "every"),
    [(ApiFault.CONFLICT, 1), (ApiFault.TOO_MANY, 4), (ApiFault.SERVER_ERROR, 1), (ApiFault.TIMEOUT_AFTER_COMMIT, 6)],
    ids=lambda value: str(value),
)
async def test_refused_writes_are_made_good(kube: KubeServer, fault: ApiFault, every: int) -> None:
    """O4: writes fail on their first attempt, or succeed unheard; everything is there exactly once in the end."""
    reference, counts, _ = await run(kube, (), create, None)
    end, disturbed, _ = await run(kube, (), create, first_attempts(fault, every))
    assert disturbed == counts
    assert end == reference


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["dropped", "frozen", "410 event", "410 status"])
async def test_lost_watches_are_made_good(kube: KubeServer, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """O2, O3: what happens while the watches are down is found when they are back."""
    monkeypatch.setattr(handlers, "INACTIVITY_S", 3.0)
    world = World(kube, await asyncio.to_thread(fresh_namespace, kube))
    async with FaultProxy(kube) as proxy, supervised(world, proxy) as supervisor:
        await create(world, supervisor)
        proxy.watch_answer = kind.removeprefix("410 ") if kind.startswith("410") else None
        if kind == "frozen":
            proxy.freeze_watches()
        else:
            proxy.drop_watches()
        await world.change({"mix": OTHER_MIX})
        await world.call("DELETE", world.child_path("Service/p-gateway"))
        if proxy.watch_answer is not None:
            await asyncio.wait_for(proxy.watch_answered.wait(), 60.0)
        proxy.watch_answer = None
        await ready(world)
        await world.wait("the mix", world.pods, lambda pods: levels(pods) == ["0-of-6", "6-of-12"])
        await world.wait("the Service", lambda: world.child("Service/p-gateway"), bool)
