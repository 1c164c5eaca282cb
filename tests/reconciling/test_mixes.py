"""Which worker stands at which level: Fixed mixes, planned ones, and labels that follow the plan and nothing else."""

from operator_world import World, pool_document
from t2i_operator.server import Operator

LEVEL = "t2iserving.dev/level"
FIXED = {"mode": "Fixed", "workers": [{"skippedSteps": 0, "workers": 1}, {"skippedSteps": 6, "workers": 2}]}
THREE = [{"name": "a", "workers": 3}]


async def levels(world: World) -> dict[str, str | None]:
    """The level label of every worker."""
    return {name: pod["metadata"]["labels"].get(LEVEL) for name, pod in (await world.pods("a")).items()}


async def settled_fixed(world: World) -> dict[str, str | None]:
    """A ready pool with the Fixed mix; its labels."""
    await world.create(pool_document(mix=FIXED, workerGroups=THREE))
    await world.until_condition("Progressing", "True")
    await world.bring_up()
    await world.until_condition("Ready", "True")
    found = await world.wait("all labelled", lambda: levels(world), lambda now: all(now.values()))
    return dict(found)


async def test_fixed_mix_is_kept_when_pods_go_and_come(world: World, operator: Operator) -> None:
    """A deleted pod comes back at its level; the others never move; the plan is not made anew."""
    before = await settled_fixed(world)
    assert sorted(str(level) for level in before.values()) == ["0-of-12", "6-of-12", "6-of-12"]
    revision = (await world.pool())["status"]["plan"]["revision"]
    await world.delete_pod("p-a-1")
    await world.until_condition("Ready", "False", "WorkersNotReady")
    await world.start_pod("StatefulSet/p-a", 1)
    await world.until_condition("Ready", "True")
    assert await world.wait("the same labels", lambda: levels(world), lambda now: now == before) == before
    assert (await world.pool())["status"]["plan"]["revision"] == revision


async def test_stripped_and_edited_labels_are_put_back(world: World, operator: Operator) -> None:
    """Labels are a projection of the plan (O7)."""
    before = await settled_fixed(world)
    path = f"/api/v1/namespaces/{world.namespace}/pods/"
    kind = "application/merge-patch+json"
    await world.call("PATCH", path + "p-a-0", {"metadata": {"labels": {LEVEL: None}}}, kind)
    await world.call("PATCH", path + "p-a-2", {"metadata": {"labels": {LEVEL: "6-of-6"}}}, kind)
    await world.wait("labels are back", lambda: levels(world), lambda now: now == before)


async def test_changed_mix_moves_labels_and_touches_no_template(world: World, operator: Operator) -> None:
    """A level change is a label and a plan revision: no generation of any workload rises, no pod is replaced."""
    before = await settled_fixed(world)
    children, pods = await world.children(), await world.pods()
    mix = {"mode": "Fixed", "workers": [{"skippedSteps": 6, "workers": 2}, {"numInferenceSteps": 6, "workers": 1}]}
    await world.change({"mix": mix})
    await world.until("the new plan", lambda pool: pool["status"]["mix"] == "1x0/6 2x6")
    after = await world.wait("labels follow", lambda: levels(world), lambda now: "0-of-6" in now.values())
    assert sum(after[name] != level for name, level in before.items()) == 1  # only the one that had to
    now = await world.children()
    for key in ("StatefulSet/p-a", "Deployment/p-gateway"):
        assert now[key]["metadata"]["resourceVersion"] == children[key]["metadata"]["resourceVersion"]
    assert {name: pod["metadata"]["uid"] for name, pod in (await world.pods()).items()} == {
        name: pod["metadata"]["uid"] for name, pod in pods.items()
    }


async def test_planned_mix_follows_who_is_ready(world: World, operator: Operator) -> None:
    """A worker lost: a new plan with a higher revision; every worker of the pool still stands at exactly one level."""
    await world.create(pool_document(workerGroups=THREE))
    await world.until_condition("Progressing", "True")
    await world.bring_up()
    pool = await world.until_condition("Ready", "True") and await world.pool()
    revision = pool["status"]["plan"]["revision"]
    await world.pod_status("p-a-2")
    pool = await world.until("a plan for two", lambda now: now["status"]["plan"]["revision"] > revision)
    assert pool["status"]["plan"]["reason"] == "PoolChanged"
    assert sum(level["workers"] for level in pool["status"]["levels"]) == 3
    assert sum(level["ready"] for level in pool["status"]["levels"]) == 2
