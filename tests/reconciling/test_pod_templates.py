"""Pod templates on a real API server: what the owner writes reaches the pods, and is then at rest."""

from typing import Any

import pytest

from operator_world import Document, World, operator_settings, pool_document, running_operator, writes_of
from t2i_operator.server import Operator

DEPLOYMENT, GROUP = "Deployment/p-gateway", "StatefulSet/p-a"
ODD: Document = {
    "labels": {"team": "x"},
    "nodeSelector": {"zone": "b"},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "", "value": ""}],
    "priorityClassName": "system-cluster-critical",
    "hostNetwork": False,
    "imagePullSecrets": [{"name": "mirror"}],
    "resources": {"limits": {"cpu": "1500m", "memory": "1024Mi"}, "requests": {"cpu": 1, "memory": "0.5Gi"}},
    "env": [
        {"name": "HTTPS_PROXY", "value": "http://proxy:3128"},
        {"name": "NO_PROXY", "value": ""},
        {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token", "optional": False}}},
    ],
    "volumes": [{"name": "ca", "secret": {"secretName": "ca", "defaultMode": 0o440}}],
    "volumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": False, "subPath": ""}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": None}
    ],
    "initContainers": [{"name": "wait", "image": "x", "tty": False, "env": [{"name": "A", "value": ""}]}],
}


def with_template(template: Document) -> dict[str, Any]:
    """The same overrides of gateways and workers."""
    return {
        "gateway": {"replicas": 1, "template": template},
        "workerGroups": [{"name": "a", "workers": 2, "template": template}],
    }


async def versions(world: World) -> dict[str, str]:
    """Resource versions of the pool and all its children."""
    found = {key: child["metadata"]["resourceVersion"] for key, child in (await world.children()).items()}
    return {**found, "pool": (await world.pool())["metadata"]["resourceVersion"]}


async def look_again(world: World, operator: Operator) -> None:
    """Provoke a look that finds nothing new."""

    def looks() -> float:
        return operator.registry.get_sample_value("t2i_operator_reconciles_total", {"outcome": "ok"}) or 0.0

    async def now() -> float:
        return looks()

    before = looks()
    marks = {"metadata": {"annotations": {"example.com/touched": str(before)}}}
    path = f"/api/v1/namespaces/{world.namespace}/pods/p-a-0"
    await world.call("PATCH", path, marks, "application/merge-patch+json")
    await world.wait("a look", now, lambda count: count > before)


async def settle(world: World) -> None:
    """Play the cluster until the pool is ready and nothing is in progress."""
    await world.bring_up()
    await world.until_condition("Ready", "True")
    await world.until_condition("Progressing", "False")


async def test_template_at_rest_is_not_written(world: World, operator: Operator) -> None:
    """The API server leaves out empty values and writes quantities its own way: no reason to write again."""
    await world.create(pool_document(**with_template(ODD)))
    await world.until_condition("Progressing", "True")
    await settle(world)
    before, written = await versions(world), writes_of(operator)
    await look_again(world, operator)
    assert await versions(world) == before
    assert writes_of(operator) == written


#: One after the other: added, reordered, put in the middle, taken out, replaced, and back to nothing.
CHANGES: tuple[Document, ...] = (
    {"env": [{"name": "B", "value": "1"}, {"name": "C", "value": "1"}], "nodeSelector": {"zone": "a"}},
    {"env": [{"name": "C", "value": "1"}, {"name": "B", "value": "1"}], "tolerations": [{"key": "x"}]},
    {"env": [{"name": "C", "value": "2"}, {"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
    {"volumes": [{"name": "b", "emptyDir": {}}, {"name": "a", "emptyDir": {}}], "priorityClassName": "high"},
    {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}], "securityContext": {"runAsUser": 7}},
    {"imagePullSecrets": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "side", "image": "s"}]},
    {"imagePullSecrets": [{"name": "a"}, {"name": "b"}], "envFrom": [{"configMapRef": {"name": "proxy"}}]},
    {},
)


async def test_changed_template_is_written_once_and_taken_back(world: World, operator: Operator) -> None:
    """Whatever was overridden before leaves nothing behind; each change is one write of each workload."""
    await world.create(pool_document())
    await world.until_condition("Progressing", "True")
    await settle(world)
    first = await pods_of(world)
    for number, template in enumerate(CHANGES):
        before = await generations(world)
        await world.change(replaced(template, CHANGES[number - 1] if number else {}))
        await world.wait(f"change {number}", lambda: generations(world), lambda now, was=before: now != was)
        await world.until_condition("Progressing", "True")
        await settle(world)
        written = writes_of(operator)
        await look_again(world, operator)
        assert writes_of(operator) == written, template
        assert await generations(world) == {key: generation + 1 for key, generation in before.items()}, template
    assert await pods_of(world) == first


def replaced(template: Document, before: Document) -> dict[str, Any]:
    """A merge patch that leaves nothing of the gateway's template before; lists of groups are replaced anyway."""
    gone = dict.fromkeys(before.keys() - template.keys())
    return {"gateway": {"template": {**gone, **template}}, "workerGroups": with_template(template)["workerGroups"]}


async def pods_of(world: World) -> list[Document]:
    """The pod templates of gateway and workers as they are stored."""
    children = await world.children()
    return [children[key]["spec"]["template"] for key in (DEPLOYMENT, GROUP)]


async def generations(world: World) -> dict[str, int]:
    """How often the specs of both workloads were changed."""
    children = await world.children()
    return {key: children[key]["metadata"]["generation"] for key in (DEPLOYMENT, GROUP)}


async def test_gateways_roll_with_a_new_one_first(world: World, operator: Operator) -> None:
    """A changed template replaces gateways only after their successors are ready, and each drains before it ends."""
    await world.create(pool_document())
    await world.until_condition("Progressing", "True")
    await settle(world)
    before = await generations(world)
    await world.change({"gateway": {"template": {"nodeSelector": {"zone": "b"}}}})
    await world.wait("node selector", lambda: pods_of(world), lambda pods: pods[0]["spec"]["nodeSelector"])
    now = await world.child(DEPLOYMENT)
    assert now is not None
    assert now["spec"]["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    pod, (container,) = now["spec"]["template"]["spec"], now["spec"]["template"]["spec"]["containers"]
    drain_s = next(int(text.partition("=")[2]) for text in container["args"] if text.startswith("--drain-s="))
    leave_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > leave_s + drain_s
    after = await generations(world)
    assert after[GROUP] == before[GROUP], "workers have nothing to do with it"


@pytest.mark.parametrize("part", ["gateway", "workers"])
async def test_value_that_only_the_api_server_can_judge_is_told(world: World, operator: Operator, part: str) -> None:
    """An unknown field of a pod: the condition names it, nothing is rolled, and taking it back is enough."""
    await world.create(pool_document())
    await world.until_condition("Progressing", "True")
    await settle(world)
    before = await pods_of(world)
    spec = with_template({"nodeSelectors": {"zone": "b"}})
    gone = {"gateway": {"template": {"nodeSelectors": None}}, "workerGroups": [{"name": "a", "workers": 2}]}
    field = "gateway" if part == "gateway" else "workerGroups"
    await world.change({field: spec[field]})
    degraded = await world.until_condition("Degraded", "True", "Refused")
    assert "nodeSelectors" in degraded["message"]
    assert await pods_of(world) == before
    await world.change(gone)
    await world.until_condition("Degraded", "False")


async def test_restart_with_odd_templates_ends_at_rest(world: World) -> None:
    """What the API server left out is compared once more after a restart, and changes no object."""
    settings = operator_settings(world.server, world.namespace)
    async with running_operator(settings):
        await world.create(pool_document(**with_template(ODD)))
        await world.until_condition("Progressing", "True")
        await settle(world)
    before = {key: child["metadata"]["resourceVersion"] for key, child in (await world.children()).items()}
    async with running_operator(settings) as again:
        await look_again(world, again)
        await world.until_condition("Progressing", "False")
        written = writes_of(again)
        await look_again(world, again)
        assert writes_of(again) == written
    assert {key: child["metadata"]["resourceVersion"] for key, child in (await world.children()).items()} == before
