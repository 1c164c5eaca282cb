"""What must not happen: writes when nothing changed or by two operators, adoption by accident, drift that stays."""

import asyncio

from operator_world import Document, World, operator_settings, pool_document, running_operator, writes_of
from t2i_operator.api import PAGE
from t2i_operator.kinds import CHILD_KIND, POOL
from t2i_operator.server import Operator
from t2i_testing_kit.kube.proxy import FaultProxy


async def settled(world: World) -> None:
    """A ready pool, to which nothing is written any more: labels and events come after the status that says Ready."""
    await world.create(pool_document())
    await world.until_condition("Progressing", "True")
    await world.bring_up()
    await world.until_condition("Ready", "True")
    await world.until_condition("Progressing", "False")
    await world.wait("labels", world.pods, lambda pods: all(is_labelled(pod) for pod in pods.values()))
    looks: list[tuple[dict[str, str], int]] = []

    async def look() -> bool:
        listed = await world.call("GET", f"/api/v1/namespaces/{world.namespace}/events")
        looks.append((await versions(world), len(listed["items"])))
        return len(looks) > 2 and looks[-1] == looks[-2] == looks[-3]

    await world.wait("quiet", look, bool)


def is_labelled(pod: Document) -> bool:
    """A worker whose level is known, or a gateway."""
    labels = pod["metadata"]["labels"]
    return "t2iserving.dev/level" in labels or "t2iserving.dev/group" not in labels


async def versions(world: World) -> dict[str, str]:
    """Resource versions of the pool and all its children."""
    found = {key: child["metadata"]["resourceVersion"] for key, child in (await world.children()).items()}
    return {**found, "pool": (await world.pool())["metadata"]["resourceVersion"]}


async def test_settled_pool_is_not_written(world: World, operator: Operator) -> None:
    """Twenty more looks at it, provoked by events that change nothing: 0 writes (O11)."""
    await settled(world)
    before, written = await versions(world), writes_of(operator)
    looks = reconciles(operator)
    for number in range(20):
        marks = {"metadata": {"annotations": {"example.com/touched": str(number)}}}
        await world.call(
            "PATCH", f"/api/v1/namespaces/{world.namespace}/pods/p-a-0", marks, "application/merge-patch+json"
        )
    await world.wait("looks", lambda: asyncio.sleep(0, reconciles(operator)), lambda now: now > looks)
    assert await versions(world) == before
    assert writes_of(operator) == written


def reconciles(operator: Operator) -> float:
    """Looks that ended well."""
    return operator.registry.get_sample_value("t2i_operator_reconciles_total", {"outcome": "ok"}) or 0.0


def events(operator: Operator) -> float:
    """Watch events heard."""
    found = [metric for metric in operator.registry.collect() if metric.name == "t2i_operator_watch_events"]
    return sum(one.value for metric in found for one in metric.samples if one.name.endswith("_total"))


async def test_restart_writes_nothing(world: World) -> None:
    """A new operator process finds everything as it should be and leaves it so."""
    settings = operator_settings(world.server, world.namespace)
    async with running_operator(settings):
        await settled(world)
    before = await versions(world)
    async with running_operator(settings) as again:
        await world.wait("a look", lambda: asyncio.sleep(0, reconciles(again)), bool)
        everything = len(before) + len(await world.pods())
        await world.wait("the watches' lists", lambda: asyncio.sleep(0, events(again)), lambda now: now >= everything)
        assert writes_of(again) == 0
    assert await versions(world) == before


async def test_lists_are_read_in_pages(world: World) -> None:
    """Ours, and those that watches begin with: a whole one takes several times the memory of what is kept of it."""
    async with FaultProxy(world.server) as proxy:
        async with running_operator(operator_settings(world.server, world.namespace, url=proxy.url)) as running:
            await world.create(pool_document())
            children = await world.wait("all children", world.children, lambda found: len(found) == 12)
            kinds = [POOL, *(CHILD_KIND[key.partition("/")[0]] for key in children)]
            await world.wait("events", lambda: asyncio.sleep(0, heard(running)), {one.kind for one in kinds}.issubset)
        asked = [proxy.record.limits[kind.path(world.namespace)] for kind in kinds]
        assert set().union(*asked) == {str(PAGE)}


def heard(operator: Operator) -> set[str]:
    """Kinds of objects that watches told of."""
    found = [metric for metric in operator.registry.collect() if metric.name == "t2i_operator_watch_events"]
    return {one.labels["kind"] for metric in found for one in metric.samples if one.value}


async def test_of_two_operators_one_writes(world: World) -> None:
    """The second waits; when the first stops, the second goes on (O8)."""
    first = operator_settings(world.server, world.namespace, "first")
    second = operator_settings(world.server, world.namespace, "second")
    async with running_operator(first) as leading:
        await world.wait("first leads", lambda: asyncio.sleep(0, leading.leadership.is_held), bool)
        async with running_operator(second) as waiting:
            await settled(world)
            assert writes_of(waiting) == 0
            assert not waiting.leadership.is_held
            leading.stop.set()
            await world.wait("second leads", lambda: asyncio.sleep(0, waiting.leadership.is_held), bool)
            written = writes_of(leading)
            await world.change({"workerGroups": [{"name": "a", "workers": 3}]})
            await world.wait("3", world.children, lambda now: now["StatefulSet/p-a"]["spec"]["replicas"] == 3)
            assert writes_of(leading) == written


async def test_edited_and_deleted_children_come_back(world: World, operator: Operator) -> None:
    """Drift by hand is repaired: a field, a label, an owner reference, a whole object (O7)."""
    await settled(world)
    uid = (await world.pool())["metadata"]["uid"]
    kind = "application/merge-patch+json"
    await world.call("PATCH", world.child_path("StatefulSet/p-a"), {"spec": {"replicas": 0}}, kind)
    await world.wait("size", world.children, lambda now: now["StatefulSet/p-a"]["spec"]["replicas"] == 2)
    for key in ("Service/p-a", "ConfigMap/p-config"):
        stripped = {"metadata": {"labels": {"t2iserving.dev/pool": None}, "ownerReferences": None}}
        await world.call("PATCH", world.child_path(key), stripped, kind)
        back = await world.wait(key, lambda key=key: world.child(key), lambda now: now["metadata"]["ownerReferences"])
        assert back["metadata"]["ownerReferences"][0]["uid"] == uid
    await world.call("DELETE", world.child_path("PodDisruptionBudget/p-a"))
    await world.wait("budget", lambda: world.child("PodDisruptionBudget/p-a"), bool)


async def test_status_is_decided_by_the_answers_to_the_children(world: World, operator: Operator) -> None:
    """A budget that is back at once was never under way: nobody else would write to it, so no event would mend that."""
    await settled(world)
    before, looks = (await world.pool())["metadata"]["resourceVersion"], reconciles(operator)
    await world.call("DELETE", world.child_path("PodDisruptionBudget/p-a"))
    await world.wait("budget", lambda: world.child("PodDisruptionBudget/p-a"), bool)
    await world.wait("a look", lambda: asyncio.sleep(0, reconciles(operator)), lambda now: now > looks)
    assert (await world.pool())["metadata"]["resourceVersion"] == before


async def test_foreign_object_of_our_name_is_left_alone(world: World, operator: Operator) -> None:
    """Somebody's own Service has the gateway's name: said, never touched; its removal is enough."""
    spec = {"ports": [{"port": 80}], "selector": {"app": "theirs"}}
    theirs = {"metadata": {"name": "p-gateway"}, "spec": spec}
    made = await world.call("POST", f"/api/v1/namespaces/{world.namespace}/services", theirs)
    await world.create(pool_document())
    ready = await world.until_condition("Ready", "False", "NameTaken")
    assert "Service/p-gateway" in ready["message"]
    now = await world.child("Service/p-gateway")
    assert now is not None
    assert now["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    await world.call("DELETE", world.child_path("Service/p-gateway"))
    await world.change({"slo": {"latencyMilliseconds": 1400}})
    await world.until_condition("Degraded", "False")
