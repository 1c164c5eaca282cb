"""Children as manifests: what must be in them, what must never change them, and how a group's template is merged."""

from pathlib import Path
from typing import Any

import pytest

from operator_world import pool_document
from t2i_operator.children import Images, Inputs, render_children
from t2i_operator.children.templates import merge_template
from t2i_operator.deciding.children import key_of
from t2i_operator.errors import TemplateInvalid
from t2i_operator.manifests import Manifest, PoolRef
from t2i_policy.pool import read_pool

PROFILE = (Path(__file__).parents[2] / "scenes" / "t2i_scenes" / "model" / "profile.json").read_text()


def rendered(**spec: Any) -> dict[str, Manifest]:
    """`KIND/NAME` -> manifest."""
    pool = read_pool(pool_document(**spec))
    children = render_children(Inputs(PoolRef("ns", "p", "uid-1"), pool.spec, PROFILE, Images("gateway@x", "worker@y")))
    return {"/".join(key_of(child)): child for child in children}


def test_mix_changes_no_child() -> None:
    """Levels are labels and a plan, never a template, a ConfigMap or anything else that is rendered."""
    mix = {"mode": "Fixed", "workers": [{"skippedSteps": 6, "workers": 2}]}
    assert rendered(mix=mix) == rendered()


def test_another_group_changes_only_the_config_and_its_own() -> None:
    """The gateway is told of workers by the API server; it must not restart for them."""
    before, after = rendered(), rendered(workerGroups=[{"name": "a", "workers": 2}, {"name": "b", "workers": 1}])
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"ConfigMap/p-config"}
    assert after.keys() - before.keys() == {"Service/p-b", "StatefulSet/p-b", "PodDisruptionBudget/p-b"}


HUB = "hf://stabilityai/sdxl"
EMBEDDERS = {
    "the embedded model's own": ({"source": "builtin://scenes"}, "--embedder=builtin://scenes", None),
    "the default of hub models": (
        {"source": HUB},
        "--embedder=hf://sentence-transformers/all-MiniLM-L6-v2",
        {"name": "models", "emptyDir": {}},
    ),
    "one in a volume": (
        {"source": HUB, "embedder": "pvc://claim/minilm"},
        "--embedder=pvc://claim/minilm",
        {"name": "models", "persistentVolumeClaim": {"claimName": "claim", "readOnly": True}},
    ),
    "none for a model in a volume": ({"source": "pvc://claim/sdxl"}, None, None),
}


@pytest.mark.parametrize(("model", "argument", "volume"), EMBEDDERS.values(), ids=EMBEDDERS.keys())
def test_gateways_get_their_embedder(model: dict[str, str], argument: str | None, volume: Manifest | None) -> None:
    """Its address, and a folder that it is found in or downloaded to; a pool that caches nothing has none."""
    for scope, expected in (("Tenant", argument), ("Off", None)):
        made = rendered(model={**pool_document()["spec"]["model"], **model}, cache={"scope": scope})[
            "Deployment/p-gateway"
        ]
        pod = made["spec"]["template"]["spec"]
        arguments = [one for one in pod["containers"][0]["args"] if one.startswith("--embedder=")]
        assert arguments == ([expected] if expected else [])
        volumes = [one for one in pod["volumes"] if one["name"] == "models"]
        mounts = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "models"]
        assert volumes == ([volume] if volume and expected else [])
        assert len(mounts) == len(volumes)


def test_every_pod_is_restricted() -> None:
    """Pod Security `restricted`, no token for workers, and time to drain."""
    children = rendered()
    for key in ("StatefulSet/p-a", "Deployment/p-gateway"):
        pod = children[key]["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            drain = next(arg for arg in container["args"] if arg.startswith("--drain-s="))
            assert pod["terminationGracePeriodSeconds"] > int(drain.partition("=")[2])
    assert children["StatefulSet/p-a"]["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_gateways_keep_their_share_of_a_busy_node() -> None:
    """Beside workers that take every core a pod without requests starves; seen on a real node of two cores."""
    (container,) = rendered()["Deployment/p-gateway"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}


POD: Manifest = {
    "metadata": {"labels": {"t2iserving.dev/pool": "p"}},
    "spec": {
        "containers": [{"name": "worker", "image": "w", "args": ["--a"], "env": [{"name": "A", "value": "1"}]}],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "securityContext": {"runAsUser": 1, "runAsNonRoot": True},
    },
}


def test_template_is_merged_by_its_rules() -> None:
    """Each rule of the module once."""
    merged = merge_template(
        POD,
        {
            "labels": {"team": "x", "t2iserving.dev/pool": "stolen"},
            "resources": {"limits": {"nvidia.com/gpu": 1}},
            "env": [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}],
            "extraArgs": ["--device=cuda"],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "tolerations": [{"key": "gpu"}],
            "securityContext": {"runAsUser": None, "fsGroup": 5},
            "containers": [{"name": "sidecar", "image": "s"}],
        },
    )
    worker, sidecar = merged["spec"]["containers"]
    assert merged["metadata"]["labels"] == {"team": "x", "t2iserving.dev/pool": "p"}
    assert worker["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    assert worker["env"] == [{"name": "A", "value": "2"}, {"name": "B", "value": "3"}]
    assert worker["args"] == ["--a", "--device=cuda"]
    assert [volume["name"] for volume in merged["spec"]["volumes"]] == ["tmp", "data"]
    assert merged["spec"]["tolerations"] == [{"key": "gpu"}]
    assert merged["spec"]["securityContext"] == {"runAsNonRoot": True, "fsGroup": 5}
    assert sidecar["name"] == "sidecar"
    assert POD["spec"]["containers"][0]["args"] == ["--a"], "the input must stay as it is"


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ({"restartPolicy": "Never"}, "restartPolicy"),
        ({"env": {"A": "1"}}, "env"),
        ({"volumes": [{"emptyDir": {}}]}, "volumes"),
        ({"labels": {"a": 1}}, "labels"),
        ({"containers": [{"name": "worker", "image": "other"}]}, "containers"),
    ],
)
def test_template_mistake_names_its_field(template: dict[str, Any], named: str) -> None:
    """The message ends up in the Ready condition."""
    with pytest.raises(TemplateInvalid, match=named):
        merge_template(POD, template)
