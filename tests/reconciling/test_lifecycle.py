"""A pool's life on a real API server: created, served, resized, deleted, created again."""

from operator_world import World, condition, pool_document
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
