"""The operator dies after every single write, and the API server misbehaves: the end is as if nothing had happened.

Oracles (Sieve's): the end state of all objects, and how often each was created and deleted, equal the undisturbed run.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kube_fixtures import fresh_namespace
from kube_proxy import Fault, FaultProxy
from kube_server import KubeServer
from operator_world import Document, World, operator_settings, pool_document
from t2i_operator import handlers
from t2i_operator.server import build_operator

MIX = {"mode": "Fixed", "workers": [{"skippedSteps": 0, "workers": 1}, {"skippedSteps": 6, "workers": 1}]}
OTHER_MIX = {"mode": "Fixed", "workers": [{"skippedSteps": 6, "workers": 1}, {"numInferenceSteps": 6, "workers": 1}]}
LARGER = {
    "workerGroups": [{"name": "a", "workers": 2}, {"name": "b", "workers": 1}],
    "mix": {"mode": "Fixed", "workers": [{"skippedSteps": 0, "workers": 1}, {"skippedSteps": 6, "workers": 2}]},
}
VOLATILE = {"uid", "resourceVersion", "creationTimestamp", "managedFields", "clusterIP", "clusterIPs", "namespace"}
VOLATILE |= {"lastTransitionTime", "madeAt", "t2iserving.dev/pool-uid", "t2iserving.dev/rendered-hash", "ipFamilies"}
QUIET_LOOKS = 10
Story = Callable[[World], Awaitable[None]]


async def ready(world: World) -> None:
    """Play the cluster until the pool says Ready for its newest spec and every label is there."""

    async def look() -> Document:
        await world.bring_up()
        return await world.pool()

    def reached(pool: Document) -> bool:
        status = pool["status"]
        conditions = {one["type"]: one["status"] for one in status["conditions"]}
        current = status["observedGeneration"] == pool["metadata"]["generation"]
        return current and conditions["Ready"] == "True" and conditions["Progressing"] == "False"

    await world.wait("ready", look, reached)
    await world.wait("labels", world.pods, lambda pods: all(is_labelled(pod) for pod in pods.values()))


def is_labelled(pod: Document) -> bool:
    """A worker whose level is known, or a gateway."""
    labels = pod["metadata"]["labels"]
    return "t2iserving.dev/level" in labels or "t2iserving.dev/group" not in labels


async def children_written(world: World) -> None:
    """Until the operator is done with the children and waits for pods."""
    await world.until_condition("Progressing", "True")


async def create(world: World) -> None:
    """A new pool with a Fixed mix."""
    await world.create(pool_document(mix=MIX))
    await world.wait("all children", world.children, lambda found: len(found) == 12)
    await ready(world)


async def resize(world: World) -> None:
    """A group more, and then one less."""
    await world.change(LARGER)
    await world.wait("15", world.children, lambda found: len(found) == 15)
    await ready(world)
    await world.change({"workerGroups": [{"name": "a", "workers": 2}], "mix": MIX})
    await world.wait("12", world.children, lambda found: len(found) == 12)
    for name in list(await world.pods("b")):
        await world.delete_pod(name)
    await ready(world)


async def change_mix(world: World) -> None:
    """Other levels for the same workers."""
    await world.change({"mix": OTHER_MIX})
    await ready(world)
    await world.wait("both", world.pods, lambda pods: levels(pods) == ["0-of-6", "6-of-12"])


def levels(pods: dict[str, Document]) -> list[str]:
    """Level labels of the workers."""
    found = [pod["metadata"]["labels"].get("t2iserving.dev/level") for pod in pods.values()]
    return sorted(level for level in found if level)


async def delete(world: World) -> None:
    """The pool goes; children are the garbage collector's, which this server lacks."""
    await world.call("DELETE", world.pools("p"))
    await world.wait("gone", lambda: world.find(world.pools("p")), lambda found: found is None)


@asynccontextmanager
async def restarted_when_killed(world: World, proxy: FaultProxy) -> AsyncIterator[Counter[str]]:
    """An operator behind the proxy, started anew whenever the proxy kills it; counts the kills."""
    kills: Counter[str] = Counter()
    settings = operator_settings(world.server, world.namespace, url=proxy.url)

    async def supervise() -> None:
        while True:
            operator = asyncio.create_task(build_operator(settings).run())
            killed = asyncio.create_task(proxy.killed.wait())
            try:
                await asyncio.wait((operator, killed), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (operator, killed):
                    task.cancel()
                await asyncio.wait((operator, killed))
            assert proxy.killed.is_set(), f"the operator ended by itself: {operator}"
            kills["kills"] += 1
            proxy.revive()

    supervisor = asyncio.create_task(supervise())
    try:
        yield kills
    finally:
        supervisor.cancel()
        await asyncio.wait([supervisor])


def masked(value: Any, namespace: str) -> Any:
    """Without what differs between two undisturbed runs."""
    if isinstance(value, dict):
        return {key: masked(one, namespace) for key, one in sorted(value.items()) if key not in VOLATILE}
    if isinstance(value, list):
        return [masked(one, namespace) for one in value]
    return value.replace(namespace, "NS") if isinstance(value, str) else value


async def state(world: World) -> str:
    """Everything there is, as text."""
    pool = await world.find(world.pools("p"))
    found = {"pool": pool, "children": await world.children(), "pods": await world.pods()}
    return json.dumps(masked(found, world.namespace), indent=1)


async def settled(world: World, proxy: FaultProxy) -> None:
    """Until nothing is written and nothing changes for QUIET_LOOKS looks: a last status write may come late."""
    seen: list[tuple[int, str]] = []

    async def look() -> list[tuple[int, str]]:
        seen.append((len(proxy.record.writes), await state(world)))
        return seen

    await world.wait("quiet", look, lambda looks: len(looks) > QUIET_LOOKS and len(set(looks[-QUIET_LOOKS:])) == 1)


async def run(kube: KubeServer, before: tuple[Story, ...], story: Story, fault: Any) -> tuple[str, Counter[str], int]:
    """End state, counts of CREATE and DELETE, writes; of the story alone, `before` runs undisturbed."""
    world = World(kube, await asyncio.to_thread(fresh_namespace, kube))
    async with FaultProxy(kube) as proxy, restarted_when_killed(world, proxy) as kills:
        for earlier in before:
            await earlier(world)
        first = len(proxy.record.writes)
        proxy.choose = fault(proxy, first) if fault else lambda _: None
        await story(world)
        await settled(world, proxy)
        proxy.choose = lambda _: None
        counts = Counter(f"CREATE {path}" for path in proxy.record.created)
        counts += Counter(f"DELETE {path}" for path in proxy.record.deleted)
        plain = Counter({re.sub(world.namespace, "NS", key): number for key, number in counts.items()})
        plain["kills"] = kills["kills"]
        return await state(world), plain, len(proxy.record.writes) - first


def kill_after(number: int) -> Any:
    """Kill once, after the `number`-th write of the story."""

    def choose_in(proxy: FaultProxy, first: int) -> Any:
        done: list[bool] = []

        def choose(_: object) -> Fault | None:
            if not done and len(proxy.record.writes) - first == number - 1:
                done.append(True)
                return Fault.KILL_AFTER
            return None

        return choose

    return choose_in


STORIES: dict[str, tuple[tuple[Story, ...], Story]] = {
    "create": ((), create),
    "resize": ((create,), resize),
    "mix change": ((create,), change_mix),
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
        assert disturbed == counts - Counter({"kills": counts["kills"]}), f"{name}, killed after write {number}"
        assert end == reference, f"{name}, killed after write {number}"
    record_property("writes", writes)


def first_attempts(kind: Fault, every: int = 1) -> Any:
    """The fault on the first attempt of every so many writes."""

    def choose_in(proxy: FaultProxy, first: int) -> Any:
        del proxy, first
        return lambda write: kind if write.attempt == 1 and write.number % every == 0 else None

    return choose_in


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("fault", "every"),
    [(Fault.CONFLICT, 1), (Fault.TOO_MANY, 4), (Fault.SERVER_ERROR, 1), (Fault.TIMEOUT_AFTER_COMMIT, 6)],
    ids=lambda value: str(value),
)
async def test_refused_writes_are_made_good(kube: KubeServer, fault: Fault, every: int) -> None:
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
    async with FaultProxy(kube) as proxy, restarted_when_killed(world, proxy):
        await create(world)
        proxy.watch_answer = kind.removeprefix("410 ") if kind.startswith("410") else None
        if kind == "frozen":
            proxy.freeze_watches()
        else:
            proxy.drop_watches()
        await world.change({"mix": OTHER_MIX})
        await world.call("DELETE", world.child_path("Service/p-gateway"))
        await asyncio.sleep(1.0)  # let the watches run into it
        proxy.watch_answer = None
        await ready(world)
        await world.wait("the mix", world.pods, lambda pods: levels(pods) == ["0-of-6", "6-of-12"])
        await world.wait("the Service", lambda: world.child("Service/p-gateway"), bool)
