"""What happens to a pool in the tests of faults, told once; the operator behind a proxy that may be killed; and what of
the end must be equal to an undisturbed run.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from operator_world import Document, World, operator_settings, pool_document
from t2i_operator.server import Operator, build_operator
from t2i_testing_kit.kube.proxy import FaultProxy

MIX = {"mode": "Fixed", "workers": [{"skippedSteps": 0, "workers": 1}, {"skippedSteps": 6, "workers": 1}]}
OTHER_MIX = {"mode": "Fixed", "workers": [{"skippedSteps": 6, "workers": 1}, {"numInferenceSteps": 6, "workers": 1}]}
LARGER = {
    "workerGroups": [{"name": "a", "workers": 2}, {"name": "b", "workers": 1}],
    "mix": {"mode": "Fixed", "workers": [{"skippedSteps": 0, "workers": 1}, {"skippedSteps": 6, "workers": 2}]},
}
VOLATILE = {"uid", "resourceVersion", "creationTimestamp", "managedFields", "clusterIP", "clusterIPs", "namespace"}
VOLATILE |= {"lastTransitionTime", "madeAt", "t2iserving.dev/pool-uid", "t2iserving.dev/rendered-hash", "ipFamilies"}
QUIET_LOOKS = 10


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


async def create(world: World, _: "Supervisor") -> None:
    """A new pool with a Fixed mix."""
    await world.create(pool_document(mix=MIX))
    await world.wait("all children", world.children, lambda found: len(found) == 12)
    await ready(world)


async def resize(world: World, _: "Supervisor") -> None:
    """A group more, and then one less."""
    await world.change(LARGER)
    await world.wait("15", world.children, lambda found: len(found) == 15)
    await ready(world)
    await world.change({"workerGroups": [{"name": "a", "workers": 2}], "mix": MIX})
    await world.wait("12", world.children, lambda found: len(found) == 12)
    for name in list(await world.pods("b")):
        await world.delete_pod(name)
    await ready(world)


async def change_mix(world: World, _: "Supervisor") -> None:
    """Other levels for the same workers."""
    await world.change({"mix": OTHER_MIX})
    await ready(world)
    await world.wait("both", world.pods, lambda pods: levels(pods) == ["0-of-6", "6-of-12"])


def levels(pods: dict[str, Document]) -> list[str]:
    """Level labels of the workers."""
    found = [pod["metadata"]["labels"].get("t2iserving.dev/level") for pod in pods.values()]
    return sorted(level for level in found if level)


async def upgrade(world: World, supervisor: "Supervisor") -> None:
    """A newer operator with newer images takes over; then the pool's own configuration changes."""
    supervisor.upgrade(worker_image="t2i-serving/worker:0.2.0", gateway_image="t2i-serving/gateway:0.2.0")
    await world.wait("the new images", world.children, lambda now: images(now) == {"0.2.0"})
    await ready(world)
    before = (await world.children())["Deployment/p-gateway"]["metadata"]["generation"]
    await world.change({"slo": {"latencyMilliseconds": 1400}})
    await world.wait("a new gateway", world.children, lambda now: generation(now, "Deployment/p-gateway") > before)
    await ready(world)


def images(children: dict[str, Document]) -> set[str]:
    """Tags of the containers' images in all workloads."""
    return {
        container["image"].rpartition(":")[2]
        for child in children.values()
        if "template" in child.get("spec", {})
        for container in child["spec"]["template"]["spec"]["containers"]
    }


def generation(children: dict[str, Document], key: str) -> int:
    """How often its spec was written."""
    return int(children[key]["metadata"]["generation"])


async def delete(world: World, _: "Supervisor") -> None:
    """The pool goes; children are the garbage collector's, which this server lacks."""
    await world.call("DELETE", world.pools("p"))
    await world.wait("gone", lambda: world.find(world.pools("p")), lambda found: found is None)


class Supervisor:
    """Runs an operator behind the proxy, and starts it anew whenever the proxy kills it or its settings change."""

    def __init__(self, world: World, proxy: FaultProxy, settings: dict[str, Any]) -> None:
        self.kills = 0
        self._proxy = proxy
        self._settings = replace(operator_settings(world.server, world.namespace, url=proxy.url), **settings)
        self._changed = asyncio.Event()
        self.operator: Operator = build_operator(self._settings)

    def upgrade(self, **settings: Any) -> None:
        """Stop the operator and start a newer one that has other settings, as a rollout does."""
        self._settings = replace(self._settings, **settings)
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.operator = build_operator(self._settings)
            work = asyncio.create_task(self.operator.run())
            reasons = [asyncio.create_task(event.wait()) for event in (self._proxy.killed, self._changed)]
            try:
                await asyncio.wait((work, *reasons), return_when=asyncio.FIRST_COMPLETED)
                if self._changed.is_set() and not self._proxy.killed.is_set():
                    self.operator.stop.set()
                    await asyncio.wait((work, reasons[0]), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (work, *reasons):
                    task.cancel()
                await asyncio.wait((work, *reasons))
            assert self._proxy.killed.is_set() or self._changed.is_set(), f"the operator ended by itself: {work}"
            self.kills += self._proxy.killed.is_set()
            self._changed.clear()
            self._proxy.revive()


@asynccontextmanager
async def supervised(world: World, proxy: FaultProxy, **settings: Any) -> AsyncIterator[Supervisor]:
    """A supervisor at work; `settings` of its operator."""
    supervisor = Supervisor(world, proxy, settings)
    task = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
    finally:
        task.cancel()
        await asyncio.wait([task])


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
