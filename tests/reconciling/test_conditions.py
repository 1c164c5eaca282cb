"""Why is my pool not ready? Each answer on a real API server, from what the kubelet and the scheduler would say."""

import json
from pathlib import Path
from typing import Any

import pytest

from operator_world import MERGE, UNSCHEDULABLE, World, pool_document
from t2i_operator.server import Operator

PROFILE = Path(__file__).parents[2] / "scenes" / "t2i_scenes" / "model" / "profile.json"
NO_IMAGE = {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}}]}
LAST_WORDS = "2026-11-26 10:00:00 CRITICAL t2i_worker: the worker cannot start: model.source: no model_index.json there"
LOAD_FAILED = {
    "containerStatuses": [
        {
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
            "lastState": {"terminated": {"exitCode": 2, "reason": "Error", "message": LAST_WORDS}},
        }
    ]
}
KILLED = {"containerStatuses": [{"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}


NO_SECRET = {"containerStatuses": [{"state": {"waiting": {
    "reason": "CreateContainerConfigError", "message": 'secret "valkey" not found',
}}}]}  # fmt: skip
CREATING = {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}
STORE = {"storeUrl": "rediss://valkey.cache.svc:6379", "storeSecretRef": {"name": "valkey"}}


def with_names(status: dict[str, Any]) -> dict[str, Any]:
    """What the API server insists on in a container's status."""
    common = {"name": "worker", "image": "t2i-serving/worker:0.1.0", "imageID": "", "ready": False, "restartCount": 1}
    if "containerStatuses" not in status:
        return status
    return {"containerStatuses": [{**common, **one} for one in status["containerStatuses"]]}


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (UNSCHEDULABLE, "NoCapacity", "0/3 nodes are available"),
        (NO_IMAGE, "ImagePullFailed", "t2i-serving/worker:0.1.0"),
        (LOAD_FAILED, "LoadFailed", "p-a-0: model.source: no model_index.json there"),
        (KILLED, "OutOfMemory", "resources.limits.memory"),
    ],
    ids=["no capacity", "image pull", "load failure", "out of memory"],
)
async def test_trouble_is_named_and_ends(
    world: World, operator: Operator, status: dict[str, Any], reason: str, words: str
) -> None:
    """The reason and the last error are in Ready and Degraded; all is well again once the pod is ready."""
    await world.create(pool_document())
    await world.until_condition("Progressing", "True")
    await world.bring_up()
    await world.until_condition("Ready", "True")
    await world.pod_status("p-a-0", **with_names(status))
    ready = await world.until_condition("Ready", "False", reason)
    assert words in ready["message"]
    assert (await world.until_condition("Degraded", "True", reason))["message"] == ready["message"]
    await world.until_condition("Available", "True")  # the other worker still serves
    await world.pod_status("p-a-0", ready=True)
    await world.until_condition("Ready", "True")
    await world.until_condition("Degraded", "False")
    await world.wait("events", world.event_reasons, lambda reasons: {"Planned", "Ready", reason} <= reasons)


async def test_missing_secret_of_a_variable_is_named_with_its_field(world: World, operator: Operator) -> None:
    """As the kubelet says it in the pod's status."""
    await world.create(pool_document(cache=STORE))
    await world.until_condition("Progressing", "True")
    await world.bring_up()
    await world.pod_status("p-a-0", **with_names(NO_SECRET))
    ready = await world.until_condition("Ready", "False", "ContainerConfigFailed")
    assert ready["message"] == (
        'p-a-0: secret "valkey" not found: create the Secret that spec.cache.storeSecretRef names, or correct the field'
    )


async def test_missing_secret_of_a_volume_is_named_with_its_field(world: World, operator: Operator) -> None:
    """The pod's status says ContainerCreating alone, as in every start; the reason is an event of the kubelet's."""
    await world.create(pool_document(cache=STORE))
    await world.until_condition("Progressing", "True")
    await world.bring_up()
    await world.until_condition("Ready", "True")
    pods = await world.pods()
    for name in ("p-a-0", "p-a-1"):  # the first starts, the second cannot
        await mount_failed(world, pods[name], "references non-existent secret key: tls.crt", "2026-11-26T10:00:00Z")
    await mount_failed(world, pods["p-a-1"], 'secret "valkey" not found', "2026-11-26T10:01:00Z")
    await world.pod_status("p-a-1", **with_names(CREATING))
    ready = await world.until_condition("Ready", "False", "ContainerConfigFailed")
    assert ready["message"] == (
        'p-a-1: secret "valkey" not found: create the Secret that spec.cache.storeSecretRef names, or correct the field'
    )
    await world.pod_status("p-a-1", ready=True)
    await world.until_condition("Ready", "True")  # the events are still there


async def mount_failed(world: World, pod: dict[str, Any], words: str, at: str) -> None:
    """The kubelet's event."""
    metadata, path = pod["metadata"], f"/api/v1/namespaces/{world.namespace}/events"
    await world.call("POST", path, {
        "metadata": {"generateName": metadata["name"]},
        "involvedObject": {
            "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"], "namespace": world.namespace,
        },
        "reason": "FailedMount", "type": "Warning", "lastTimestamp": at,
        "message": f'MountVolume.SetUp failed for volume "store-tls" : {words}',
    })  # fmt: skip


async def test_missing_profile_is_a_spec_problem_that_mends(world: World, operator: Operator) -> None:
    """A model without a profile is not started blindly; what to do is said, and doing it is enough."""
    source, draws = "hf://nobody/nothing", {"numInferenceSteps": 12, "guidanceScalePercent": 200}
    model = {"source": source, **draws, "width": 48, "height": 48}
    await world.create(pool_document(model=model, profileRef={"name": "measured"}))
    ready = await world.until_condition("Ready", "False", "ProfileMissing")
    assert "measured" in ready["message"]
    assert await world.children() == {}
    data = {"profile.json": PROFILE.read_text()}  # stands in for a measured one
    labels = {"app.kubernetes.io/managed-by": "Helm"}
    config = {"metadata": {"name": "measured", "labels": labels}, "data": data}
    path = f"/api/v1/namespaces/{world.namespace}/configmaps"
    await world.call("POST", path, config)
    await world.until_condition("Progressing", "True")
    await world.until_condition("Degraded", "False")


async def test_changed_profile_reaches_gateways_and_workers(world: World, operator: Operator) -> None:
    """Measured again: the pool's own copy follows at once; taken away: the spec cannot be carried out, all stays."""
    path = f"/api/v1/namespaces/{world.namespace}/configmaps"
    text = PROFILE.read_text()
    await world.call("POST", path, {"metadata": {"name": "measured"}, "data": {"profile.json": text}})
    await world.create(pool_document(profileRef={"name": "measured"}))
    await world.wait("children", world.children, lambda found: len(found) == 12)
    again = json.dumps(json.loads(text) | {"device": "another"})
    await world.call("PATCH", f"{path}/measured", {"data": {"profile.json": again}}, MERGE)
    copy = "ConfigMap/p-config"
    await world.wait("the copy", lambda: world.child(copy), lambda one: one["data"]["profile.json"] == again)
    await world.call("DELETE", f"{path}/measured")
    await world.until_condition("Ready", "False", "ProfileMissing")
    assert len(await world.children()) == 12


async def test_pools_whose_children_would_have_one_name(world: World, operator: Operator) -> None:
    """Pool `a` with group `b-c`, pool `a-b` with group `c`: the second is told whose name it is, the first is safe."""
    await world.create(pool_document("a", workerGroups=[{"name": "b-c", "workers": 1}]))
    first = await world.wait("the first", lambda: world.child("StatefulSet/a-b-c"), bool)
    await world.create(pool_document("a-b", workerGroups=[{"name": "c", "workers": 1}]))
    told = await world.until_condition("Ready", "False", "NameTaken", "a-b")
    assert "StatefulSet/a-b-c (of T2IServingPool a)" in told["message"]
    assert "rename" in told["message"]
    now = await world.child("StatefulSet/a-b-c")
    assert now is not None
    assert now["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    await world.call("DELETE", world.pools("a-b"))
    await world.until_condition("Progressing", "True", name="a")


async def test_bad_template_stops_nothing_and_rolls_back(world: World, operator: Operator) -> None:
    """A template that cannot be merged: InvalidSpec, children stay; the former value restores all (O6)."""
    await world.create(pool_document())
    await world.until_condition("Progressing", "True")
    await world.bring_up()
    await world.until_condition("Ready", "True")
    before = await world.children()
    bad = [{"name": "a", "workers": 2, "template": {"labels": {"a": 1}}}]
    await world.change({"workerGroups": bad})
    ready = await world.until_condition("Ready", "False", "InvalidSpec")
    assert "template of 'a': labels must map names to texts" in ready["message"]
    await world.until_condition("Available", "True")
    await world.change({"workerGroups": [{"name": "a", "workers": 2}]})
    await world.until_condition("Ready", "True")
    assert generations(await world.children()) == generations(before)


def generations(children: dict[str, Any]) -> dict[str, int]:
    """How often each spec was written."""
    return {key: child["metadata"].get("generation", 0) for key, child in children.items()}
