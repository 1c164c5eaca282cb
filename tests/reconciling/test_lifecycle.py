"""A pool's life on a real API server: created, served, resized, deleted, created again."""

import getpass

import pytest

from operator_world import Document, World, condition, operator_settings, pool_document, running_operator
from t2i_operator.server import Operator


async def test_created_pool_gets_ready(world: World, operator: Operator) -> None:
    """Apply a pool: children appear, owned by it; workers come up; a plan is made; Ready says so."""
    await world.create(pool_document())
    await world.until_condition("Progressing", "True")
    children = await world.children()
    uid = (await world.pool())["metadata"]["uid"]
    assert len(children) == 12
    assert all(child["metadata"]["ownerReferences"][0]["uid"] == uid for child in children.values())
    await world.bring_up()
    await world.until_condition("Ready", "True")
    pool = await world.pool()
    assert pool["status"]["readyWorkers"] == pool["status"]["workers"] == 2
    assert pool["status"]["mix"] == "2x0"
    assert sum(level["workers"] for level in pool["status"]["levels"]) == 2
    assert condition(pool, "Degraded")["status"] == "False"
    assert all(one["observedGeneration"] == 1 for one in pool["status"]["conditions"])

    async def levels() -> list[str | None]:
        return [pod["metadata"]["labels"].get("t2iserving.dev/level") for pod in (await world.pods("a")).values()]

    # labels follow the plan that Ready tells of, pod by pod
    await world.wait("both workers have their level", levels, lambda found: found == ["0-of-12", "0-of-12"])


async def test_runs_as_a_user_without_a_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the numeric user has no entry in /etc/passwd: the operator watches all the same."""

    def nameless() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr(getpass, "getuser", nameless)
    await world.create(pool_document())
    async with running_operator(operator_settings(world.server, world.namespace)):
        await world.until_condition("Progressing", "True")


async def test_group_added_resized_and_removed(world: World, operator: Operator) -> None:
    """Each change of the groups touches that group's children only; what is not asked for any more goes."""
    await world.create(pool_document())
    await world.until_condition("Progressing", "True")
    before = await world.children()
    two = [{"name": "a", "workers": 2}, {"name": "b", "workers": 1}]
    await world.change({"workerGroups": two})
    await world.wait("group b", world.children, lambda now: "StatefulSet/p-b" in now and "Service/p-b" in now)
    await world.change({"workerGroups": [{"name": "a", "workers": 3}, {"name": "b", "workers": 1}]})
    await world.wait("3 of a", world.children, lambda now: now["StatefulSet/p-a"]["spec"]["replicas"] == 3)
    await world.change({"workerGroups": [{"name": "a", "workers": 3}]})
    after = await world.wait("b gone", world.children, lambda now: not any("p-b" in key for key in now))
    template = "StatefulSet/p-a"
    assert after[template]["spec"]["template"] == before[template]["spec"]["template"]
    untouched = "Deployment/p-gateway"
    assert after[untouched]["metadata"]["generation"] == before[untouched]["metadata"]["generation"]


async def test_pool_recreated_under_its_name_waits_for_the_old_children(world: World, operator: Operator) -> None:
    """Without a garbage collector the old children stay: the new pool must not adopt or change them (O2)."""
    await world.create(pool_document())
    await world.until_condition("Progressing", "True")
    old = await world.children()
    await world.call("DELETE", world.pools("p"))
    await world.create(pool_document())
    await world.until_condition("Ready", "False", "NameTaken")
    now = await world.children()
    assert {key: child["metadata"]["resourceVersion"] for key, child in now.items()} == {
        key: child["metadata"]["resourceVersion"] for key, child in old.items()
    }
    for key in old:
        await world.call("DELETE", world.child_path(key))
    new_uid = (await world.pool())["metadata"]["uid"]
    fresh = await world.wait("new children", world.children, lambda found: len(found) == 12)
    assert all(child["metadata"]["ownerReferences"][0]["uid"] == new_uid for child in fresh.values())
    await world.until_condition("Degraded", "False")


async def test_deleted_pool_leaves_nothing(full_world: World, full_operator: Operator) -> None:
    """With the garbage collector: children and pods go, and the operator writes nothing on the way."""
    world = full_world
    await world.create(pool_document())
    await world.wait("pods by the controllers", world.pods, lambda pods: len(pods) == 3)
    await world.call("DELETE", world.pools("p"))
    patient_s = 150.0  # the garbage collector learns of a new kind every 30 s only
    await world.wait("no children", world.children, lambda found: not found, patient_s)
    await world.wait("no pods", world.pods, lambda pods: all(is_going(pod) for pod in pods.values()), patient_s)
    assert await world.find(world.pools("p")) is None


def is_going(pod: Document) -> bool:
    """Without a kubelet nobody ends the containers."""
    return "deletionTimestamp" in pod["metadata"]
