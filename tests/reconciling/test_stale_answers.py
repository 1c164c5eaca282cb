"""The API server is slow, hides events or answers from the past: nothing newer is undone, what was missed is found."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from kube_fixtures import fresh_namespace
from operator_stories import change_mix, create, levels, settled, state, supervised
from operator_world import MERGE, UNSCHEDULABLE, World, operator_settings, running_operator
from t2i_operator.api import KubeApi
from t2i_testing_kit.kube.proxy import FaultProxy
from t2i_testing_kit.kube.server import KubeServer


async def here(kube: KubeServer) -> World:
    """A namespace of its own."""
    return World(kube, await asyncio.to_thread(fresh_namespace, kube))


async def touch(world: World, mark: str) -> None:
    """A change of a pod that means nothing, to be looked at."""
    path = f"/api/v1/namespaces/{world.namespace}/pods/p-a-0"
    await world.call("PATCH", path, {"metadata": {"annotations": {"example.com/touched": mark}}}, MERGE)


@pytest.mark.timeout(300)
async def test_slow_reads_only_take_longer(kube: KubeServer) -> None:
    """Every read takes 1.5 s more: the same end, the same writes, each once."""
    ends = []
    for delay_s in (0.0, 1.5):
        world = await here(kube)
        async with FaultProxy(kube) as proxy, supervised(world, proxy) as supervisor:
            proxy.read_delay_s = delay_s
            await create(world, supervisor)
            await settled(world, proxy)
            ends.append((await state(world), len(proxy.record.created), proxy.record.deleted))
    assert ends[0] == ends[1]


async def test_watch_that_begins_in_the_past_changes_nothing(kube: KubeServer) -> None:
    """All watches are cut and replay the pool's whole history: not one write, and the plan stands."""
    world = await here(kube)
    async with FaultProxy(kube) as proxy, supervised(world, proxy) as supervisor:
        begin = (await world.call("GET", world.pools()))["metadata"]["resourceVersion"]
        await create(world, supervisor)
        await change_mix(world, supervisor)
        await settled(world, proxy)
        before, writes = await state(world), len(proxy.record.writes)
        heard = supervisor.operator.metrics.watch_events.labels("T2IServingPool")
        first = heard._value.get()
        proxy.watch_from = begin
        proxy.drop_watches()
        await world.wait("history", lambda: asyncio.sleep(0, heard._value.get()), lambda now: now >= first + 4)
        await settled(world, proxy)
        assert len(proxy.record.writes) == writes
        assert await state(world) == before


async def test_pool_out_of_the_past_is_not_believed(kube: KubeServer) -> None:
    """Full lists give the pool as it was before its mix changed: nothing is written by that, and it works on."""
    world = await here(kube)
    async with FaultProxy(kube) as proxy, supervised(world, proxy, resync_s=1.0) as supervisor:
        await create(world, supervisor)
        await settled(world, proxy)
        old = await world.call("GET", world.pools())
        await change_mix(world, supervisor)
        await settled(world, proxy)
        writes = len(proxy.record.writes)
        proxy.stale[world.pools()] = old
        await world.call("PATCH", world.pools("p"), {"metadata": {"annotations": {"example.com/touched": "1"}}}, MERGE)
        await world.wait("lists", lambda: asyncio.sleep(0, proxy.stale_answers), lambda now: now >= 3)
        await settled(world, proxy)
        assert len(proxy.record.writes) == writes
        assert (await world.pool())["status"]["plan"]["revision"] > old["items"][0]["status"]["plan"]["revision"]
        await touch(world, "2")
        await world.delete_pod("p-a-1")
        await world.until_condition("Ready", "False", "WorkersNotReady")
        await world.bring_up()
        await world.until_condition("Ready", "True")
        await world.wait("the new mix", world.pods, lambda pods: levels(pods) == ["0-of-6", "6-of-12"])


async def test_hidden_events_are_made_good_by_the_next_full_list(kube: KubeServer) -> None:
    """The watch of Services leaves a deletion out (Sieve's unobserved state): found without it."""
    world = await here(kube)
    async with FaultProxy(kube) as proxy:
        settings = replace(operator_settings(kube, world.namespace, url=proxy.url), resync_s=2.0)
        async with running_operator(settings):
            await world.create_ready()
            proxy.hide = lambda event: event["object"].get("kind") == "Service"
            old = await world.child("Service/p-gateway")
            assert old is not None
            await world.call("DELETE", world.child_path("Service/p-gateway"))
            await world.wait("a new one", lambda: world.child("Service/p-gateway"), bool)


async def test_what_came_with_the_answer_to_our_own_write_is_looked_at(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kubelet says that a pod is in trouble in the moment in which the operator labels it. The answer to the label
    holds both, and the event comes too late to be news (here: never); the trouble must be seen all the same.
    """
    world, label = await here(kube), KubeApi.label_pod
    begun = asyncio.Event()

    async def label_in_trouble(api: KubeApi, namespace: str, name: str, *what: Any) -> Any:
        if begun.is_set() and name == "p-a-0":
            await world.pod_status(name, **UNSCHEDULABLE)
        return await label(api, namespace, name, *what)

    monkeypatch.setattr(KubeApi, "label_pod", label_in_trouble)
    async with FaultProxy(kube) as proxy, supervised(world, proxy) as supervisor:
        await create(world, supervisor)
        await settled(world, proxy)
        begun.set()
        proxy.hide = lambda event: event["object"]["metadata"].get("name") == "p-a-0"
        await change_mix(world, supervisor)
        ready = await world.until_condition("Ready", "False", "NoCapacity")
        assert "0/3 nodes are available" in ready["message"]
