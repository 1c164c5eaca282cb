"""Changes of a pool that lives: what may change, what may not, and that a refused change leaves nothing behind."""

import pytest

from t2i_testing_kit.crd.documents import Pools, changed, pool_document

TURBO = {"name": "turbo", "source": "builtin://scenes/distilled", "numInferenceSteps": 4}

IMMUTABLE: dict[str, tuple[str, object, str]] = {
    "the source": ("spec.model.source", "hf://org/other", "spec.model"),
    "the schedule": ("spec.model.numInferenceSteps", 40, "spec.model"),
    "the guidance": ("spec.model.guidanceScalePercent", 100, "spec.model"),
    "the width": ("spec.model.width", 64, "spec.model"),
    "the precision": ("spec.model.precision", "fp16", "spec.model"),
    "the revision": ("spec.model.revision", "main", "spec.model"),
    "the embedder": ("spec.model.embedder", "hf://org/other", "spec.model"),
    "that a group holds the pool's model": ("spec.workerGroups.1.model", TURBO, "spec.workerGroups[1]"),
    "a group's engine": ("spec.workerGroups.0.engine", "simulated", "spec.workerGroups[0].engine"),
}

MUTABLE: dict[str, dict[str, object]] = {
    "levels": {"spec.levels": [{}]},
    "a group's size": {"spec.workerGroups.0.workers": 9},
    "another group": {"spec.workerGroups.2": {"name": "sim", "workers": 2, "engine": "simulated"}},
    "another group, of another model": {"spec.workerGroups.2": {"name": "few", "workers": 2, "model": TURBO}},
    "fewer groups": {"spec.workerGroups": [{"name": "cpu", "workers": 1}]},
    "the order of groups": {"spec.workerGroups": [{"name": "cpu", "workers": 1}, {"name": "gpu", "workers": 3}]},
    "a group replaced by one of another engine": {
        "spec.workerGroups": [{"name": "sim", "workers": 4, "engine": "simulated"}]
    },
    "the mix": {"spec.mix": {"mode": "Fixed", "workers": [{"workers": 4}]}},
    "the pod template": {"spec.workerGroups.0.template": {"nodeSelector": {"zone": "b"}}},
    "the gateway's pod template": {"spec.gateway.template": {"env": [{"name": "A", "value": "b"}]}},
    "audits": {"spec.quality": {"judge": "scenes", "recalibrate": True}},
    "targets, cache and gateway": {
        "spec.slo": {"latencyMilliseconds": 1},
        "spec.cache": {"scope": "Off"},
        "spec.gateway": {"replicas": 3},
    },
}


@pytest.mark.parametrize("what", IMMUTABLE)
def test_immutable(pools: Pools, what: str) -> None:
    """What every worker keeps warm and the profile was measured for cannot change under a running pool."""
    path, value, field = IMMUTABLE[what]
    before = pools.create(pool_document())
    answer = pools.replace(changed(before, {path: value}))
    assert answer.status == 422
    assert f"{field}: Invalid value" in answer.message
    assert "is immutable" in answer.message
    assert "another" in answer.message  # what to do instead
    assert pools.get("demo") == before


@pytest.mark.parametrize("value", [{**TURBO, "precision": "fp16"}, None], ids=["another", "none"])
def test_model_of_a_group_is_immutable(pools: Pools, value: object) -> None:
    """Its workers keep it warm, and its section of the profile was measured with exactly this."""
    document = pool_document()
    document["spec"]["workerGroups"][1]["model"] = TURBO
    before = pools.create(document)
    answer = pools.replace(changed(before, {"spec.workerGroups.1.model": value}))
    assert answer.status == 422
    assert "spec.workerGroups[1]: Invalid value" in answer.message
    assert "model is immutable" in answer.message
    assert "add another group and remove this one" in answer.message
    assert pools.get("demo") == before


@pytest.mark.parametrize("what", MUTABLE)
def test_mutable(pools: Pools, what: str) -> None:
    """Everything else follows the spec, and back."""
    before = pools.create(pool_document())
    there = pools.replace(changed(before, MUTABLE[what]))
    assert there.ok, there.message
    assert there.body["spec"] != before["spec"]
    assert there.body["metadata"]["generation"] == 2
    back = pools.replace({**there.body, "spec": before["spec"]})
    assert back.ok, back.message
    assert back.body["spec"] == before["spec"]


def test_model_spelled_out_is_no_change(pools: Pools) -> None:
    """Writing a default that was left out before is not a change of the model."""
    before = pools.create(pool_document())
    assert pools.replace(changed(before, {"spec.model.precision": "bf16"})).ok
    assert pools.get("demo")["metadata"]["generation"] == 1


def test_appliers_own_single_groups(pools: Pools) -> None:
    """Server-side apply merges groups by name: two teams may each keep their own."""
    base = pool_document()
    base["spec"]["workerGroups"] = base["spec"]["workerGroups"][:1]
    other = {**base, "spec": {"workerGroups": [{"name": "tpu", "workers": 2}]}}
    kind = "application/apply-patch+yaml"
    for manager, document in (("one", base), ("two", other)):
        answer = pools.server.call("PATCH", f"{pools.path}/demo?fieldManager={manager}", document, kind)
        assert answer.ok, answer.message
    assert [group["name"] for group in pools.get("demo")["spec"]["workerGroups"]] == ["gpu", "tpu"]
