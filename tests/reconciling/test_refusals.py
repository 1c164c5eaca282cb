"""What the API server refuses for good (a permission, a quota) is told in conditions, and stops nothing else."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from operator_world import Document, World, operator_settings, pool_document, running_operator
from t2i_operator.server import Operator

PAGE = (Path(__file__).parents[2] / "docs" / "permissions.md").read_text()
RBAC = "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/{}"
PATIENT_S = 150.0  # pauses between tries grow


def role(without: tuple[str, str] | None) -> Document:
    """All that docs/permissions.md lists, less one verb on one resource."""
    rules = []
    for group, resources, verbs in re.findall(r"^\| `([\w.]+)` \| `([^|]+)` \| `([^|]+)` \|", PAGE, re.MULTILINE):
        for resource in resources.split():
            left = [verb for verb in verbs.split() if (verb, resource) != without]
            rules.append({"apiGroups": [group.replace("core", "")], "resources": [resource], "verbs": left})
    return {"metadata": {"name": "operator"}, "rules": rules}


@asynccontextmanager
async def operator_without(world: World, missing: tuple[str, str]) -> AsyncIterator[Operator]:
    """An operator with the rights of the chart, less one."""
    user = f"operator-of-{world.namespace}"
    subject = {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
    binding = {
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"},
        "subjects": [subject],
    }
    await world.call("POST", RBAC.format(world.namespace, "roles"), role(missing))
    await world.call("POST", RBAC.format(world.namespace, "rolebindings"), binding)
    settings = replace(operator_settings(world.server, world.namespace), kubeconfig=world.server.user(user))
    async with running_operator(settings) as running:
        yield running


async def grant_all(world: World) -> None:
    """What was missing, too."""
    await world.call("PUT", RBAC.format(world.namespace, "roles/operator"), role(None))


async def events(world: World) -> list[Document]:
    """Of the namespace."""
    listed = await world.call("GET", f"/api/v1/namespaces/{world.namespace}/events")
    found: list[Document] = listed["items"]
    return found


async def forbidden(world: World) -> list[Document]:
    """Events that tell of a permission."""
    return [one for one in await events(world) if one["reason"] == "Forbidden"]


@pytest.mark.parametrize("missing", [("patch", "statefulsets"), ("create", "services"), ("list", "pods")], ids=" ".join)
async def test_missing_permission_is_named_and_mends(world: World, missing: tuple[str, str]) -> None:
    """Condition and event say which verb on which resource; with the permission everything is made good."""
    verb, resource = missing
    async with operator_without(world, missing):
        await world.create(pool_document())
        told = await world.until_condition("Ready", "False", "Forbidden")
        for words in (verb, resource, "docs/permissions.md"):
            assert words in told["message"]
        await world.until_condition("Degraded", "True", "Forbidden")
        warnings = await world.wait("the event, which comes after the status", lambda: forbidden(world), bool)
        assert resource in warnings[0]["message"]
        await grant_all(world)
        await world.wait("children", world.children, lambda found: len(found) == 12, PATIENT_S)
        await world.until_condition("Degraded", "False")


async def test_events_that_may_not_be_written_stop_nothing(world: World) -> None:
    """Events are for people; a pool without them gets as ready, and no look fails: a binding comes after its role."""
    async with operator_without(world, ("create", "events")) as operator:
        await world.create(pool_document())
        await world.until_condition("Progressing", "True")
        await world.bring_up()
        await world.until_condition("Ready", "True")
        assert await events(world) == []
        outcomes = {"outcome": "api_error"}
        assert not operator.registry.get_sample_value("t2i_operator_reconciles_total", outcomes)


async def quota(world: World, hard: dict[str, str], name: str = "limit") -> None:
    """A quota in force: its controller has counted."""
    path = f"/api/v1/namespaces/{world.namespace}/resourcequotas"
    await world.call("POST", path, {"metadata": {"name": name}, "spec": {"hard": hard}})
    await world.wait("quota", lambda: world.call("GET", f"{path}/{name}"), lambda one: one["status"]["used"])


async def lift(world: World, name: str = "limit") -> None:
    """Remove it."""
    await world.call("DELETE", f"/api/v1/namespaces/{world.namespace}/resourcequotas/{name}")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "hard",
    [pytest.param({"pods": "1"}, id="pods"), pytest.param({"count/statefulsets.apps": "0"}, id="statefulsets")],
)
async def test_quota_is_told_in_its_own_words_and_mends(
    full_world: World, full_operator: Operator, hard: dict[str, Any]
) -> None:
    """Pods that controllers may not create, and a child that we may not: NoCapacity until the quota is lifted."""
    world = full_world
    await quota(world, hard)
    await world.create(pool_document())
    told = await world.until_condition("Ready", "False", "NoCapacity")
    assert "exceeded quota: limit" in told["message"]
    await lift(world)
    await world.wait("pods", world.pods, lambda pods: len(pods) == 3, PATIENT_S)
    await world.until_condition("Ready", "False", "WorkersNotReady")
