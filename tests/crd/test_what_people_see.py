"""Defaults, documentation, columns and the status subresource, as the API server serves them."""

import re
from typing import Any

import pytest

from t2i_api.crd import pool_schema
from t2i_api.parse import read_pool
from t2i_api.status import (
    AuditedLevelStatus,
    AuditsStatus,
    ConditionStatus,
    GroupStatus,
    LevelStatus,
    ModelStatus,
    MoveStatus,
    PlacementStatus,
    PlanStatus,
    PoolStatus,
    ShiftStatus,
)
from t2i_testing_kit.crd.documents import Pools, changed, pool_document
from t2i_testing_kit.kube.server import KubeServer

WHEN = "2026-01-02T03:04:05Z"
MILLISECONDS = "2026-01-02T03:04:05.678Z"
STATUS = PoolStatus(
    observed_generation=1,
    conditions=(
        ConditionStatus(
            type="Ready",
            status="False",
            reason="NoCapacity",
            message="2 of 4 workers wait for a device: add nodes",
            last_transition_time=WHEN,
            observed_generation=1,
        ),
    ),
    workers=4,
    ready_workers=2,
    groups=(
        GroupStatus(name="gpu", model="reference", workers=3, ready=2),
        GroupStatus(name="cpu", model="turbo", workers=1, ready=0),
    ),
    models=(
        ModelStatus(name="reference", workers=3, ready=2),
        ModelStatus(name="turbo", workers=1, ready=0, reload_milliseconds=12_345),
    ),
    move=MoveStatus(
        worker="demo-gpu-2", from_model="reference", to_model="turbo", reason="it pays", ordered_at=MILLISECONDS
    ),
    mix="3x0 1xturbo:0/4",
    levels=(
        LevelStatus(skipped_steps=0, num_inference_steps=20, workers=3, ready=2, load_percent=80),
        LevelStatus(skipped_steps=0, num_inference_steps=4, model="turbo", workers=1),
    ),
    plan=PlanStatus(
        revision=7,
        reason="DemandChanged",
        outcome="AllServed",
        method="Exact",
        made_at=WHEN,
        demand_milli_rps=1500,
        quality_percent=97,
        placements=(
            PlacementStatus(group="gpu", skipped_steps=0, num_inference_steps=20, workers=3, numbers=(0, 1, 2)),
        ),
        shifts=(ShiftStatus(prompt_class="0.80", skipped_steps=0, num_inference_steps=20, share_per_mille=1000),),
    ),
    quality_percent=97,
    measured_quality_percent=96,
    audits=AuditsStatus(
        count=40,
        promised_percent=97,
        measured_percent=96,
        margin_per_mille=12,
        judge="scenes 1",
        corrections_revision=2,
        correction_reason="40 recent audits say so",
        levels=(
            AuditedLevelStatus(
                skipped_steps=10, num_inference_steps=20, count=40, promised_percent=97, measured_percent=96
            ),
        ),
    ),
)


def status_document() -> dict[str, Any]:
    """The status as the operator writes it."""
    return STATUS.model_dump(by_alias=True, exclude_none=True, mode="json")


def test_defaults_are_the_parsers(pools: Pools) -> None:
    """The server fills in what our parser would, to the last field."""
    document = pool_document()
    document["spec"] = {"model": {"source": "builtin://scenes"}, "workerGroups": [{"name": "gpu", "workers": 1}]}
    stored = pools.create(document)["spec"]
    assert stored == read_pool(document).spec.model_dump(by_alias=True, exclude_none=True, mode="json")


def test_defaults_of_parts_are_the_parsers(pools: Pools) -> None:
    """Also inside parts that are half given."""
    parts = {
        "spec.mix": {},
        "spec.slo": {"minQualityPercent": 80},
        "spec.cache": {"storeUrl": "memory://"},
        "spec.gateway": {"tenants": [{"name": "a"}]},
        "spec.levels": [{}, {"skippedSteps": 1}],
        "spec.workerGroups.1.model": {"name": "turbo", "source": "hf://acme/turbo"},
    }
    document = changed(pool_document(), parts)
    stored = pools.create(document)["spec"]
    assert stored == read_pool(document).spec.model_dump(by_alias=True, exclude_none=True, mode="json")


def schema_nodes(node: dict[str, Any], path: str) -> dict[str, dict[str, Any]]:
    """Every field of the schema by path."""
    found = {path: node} if path else {}
    for name, child in node.get("items", node).get("properties", {}).items():
        found |= schema_nodes(child, f"{path}.{name}" if path else name)
    return found


def test_every_field_is_documented() -> None:
    """A sentence for each, in spec and status."""
    nodes = {path: node for path, node in schema_nodes(pool_schema(), "").items() if path != "metadata"}
    assert len(nodes) > 60
    assert [path for path, node in nodes.items() if not node.get("description", "").endswith(".")] == []


def test_kubectl_explain(kube: KubeServer) -> None:
    """`kubectl explain` by short name, down to a field, with bounds and meaning."""
    text = kube.kubectl("explain", "t2ip.spec.model.numInferenceSteps")
    assert "Denoising steps of the full schedule: what an exact image takes." in text
    whole = kube.kubectl("explain", "t2ip.spec", "--recursive")
    for field in ("workerGroups", "latencyMilliseconds", "minQualityPercent", "enum: Auto, Fixed"):
        assert field in whole


def test_columns(pools: Pools) -> None:
    """`kubectl get t2ip` answers what people ask first; more with `-o wide`."""
    pools.create(pool_document())
    assert pools.patch("demo", {"status": status_document()}, "/status").ok
    namespace = pools.path.split("/")[-2]
    header, row = pools.server.kubectl("get", "t2ip", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "WORKERS", "MIX", "QUALITY", "AGE"]
    assert re.fullmatch(r"demo +False +NoCapacity +4 +3x0 1xturbo:0/4 +97 +\d+s *", row)
    wide = pools.server.kubectl("get", "t2ip", "-n", namespace, "-o", "wide")
    assert "add nodes" in wide


def test_category(pools: Pools) -> None:
    """`kubectl get all` shows pools."""
    pools.create(pool_document())
    assert "t2iservingpool" in pools.server.kubectl("get", "all", "-n", pools.path.split("/")[-2], "-o", "name")


def test_status_survives_the_round_trip(pools: Pools) -> None:
    """Nothing that the operator writes is pruned, and gateways read back what was meant."""
    pools.create(pool_document())
    answer = pools.patch("demo", {"status": status_document()}, "/status")
    assert answer.ok, answer.message
    assert pools.get("demo")["status"] == status_document()
    assert PoolStatus.model_validate(pools.get("demo")["status"]) == STATUS


def test_status_is_a_subresource(pools: Pools) -> None:
    """Who writes the spec cannot write the status, nor the other way round, and status does not raise generation."""
    before = pools.create({**pool_document(), "status": status_document()})
    assert "status" not in before
    answer = pools.patch("demo", {"status": {"workers": 4}, "spec": {"slo": {"minQualityPercent": 1}}}, "/status")
    assert answer.ok, answer.message
    after = pools.get("demo")
    assert after["spec"] == before["spec"]
    assert after["status"]["workers"] == 4
    assert after["metadata"]["generation"] == 1


BAD_STATUS: dict[str, tuple[dict[str, Any], str]] = {
    "a condition without reason": (
        {"conditions": [{"type": "Ready", "status": "True", "message": "", "lastTransitionTime": WHEN}]},
        "status.conditions[0].reason: Required value",
    ),
    "a condition twice": ({"conditions": [status_document()["conditions"][0]] * 2}, "Duplicate value"),
    "a half worker": ({"workers": 1.5}, "status.workers"),
    "a plan without revision": ({"plan": {"reason": "NoPlan"}}, "status.plan.revision: Required value"),
}


@pytest.mark.parametrize("mistake", BAD_STATUS)
def test_bad_status_is_refused(pools: Pools, mistake: str) -> None:
    """A bug in the operator shows at once, not in a gateway."""
    status, said = BAD_STATUS[mistake]
    pools.create(pool_document())
    answer = pools.patch("demo", {"status": status}, "/status")
    assert answer.status == 422
    assert said in answer.message
