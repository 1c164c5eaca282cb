"""Examples are what people copy first: each is accepted by the API server, by our parser and by the template merge."""

import pytest
import yaml

from example_pools import EXAMPLES, children_of, documents
from t2i_api.parse import parse_pool
from t2i_policy.profile_document import parse_profile
from t2i_sources import builtin_folder
from t2i_testing_kit.kube.server import KubeServer

FILES = sorted(path.name for path in EXAMPLES.glob("*.yaml"))
QUICK_START = "sdxl-quickstart.yaml"
LINE = 140


@pytest.mark.parametrize("name", FILES)
def test_example_accepted_by_the_api_server(kube: KubeServer, namespace: str, name: str) -> None:
    """Schema, CEL rules, no unknown field."""
    path = str(EXAMPLES / name)
    answer = kube.kubectl("apply", "-n", namespace, "--dry-run=server", "--validate=strict", "-f", path)
    assert "created (server dry run)" in answer


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("pool") or name == QUICK_START])
def test_children_of_example_pass_restricted_pod_security(kube: KubeServer, namespace: str, name: str) -> None:
    """Pods with GPUs, claims and tokens included: the overrides of an example must not loosen what we render."""
    kube.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    for workload in children_of(name, namespace):
        if workload["kind"] in ("Deployment", "StatefulSet"):
            template = workload["spec"]["template"]
            pod = {"metadata": {**template["metadata"], "name": "pod"}, "spec": template["spec"]}
            answer = kube.call("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
            assert answer.ok, answer.message


@pytest.mark.parametrize("name", ["pool-sdxl-gpu.yaml", QUICK_START])
def test_sdxl_worker_sees_claim_token_and_gpu(name: str) -> None:
    """The overrides reach the worker's pod: the claim replaces the empty models folder, it does not stand beside it."""
    (group,) = (one for one in children_of(name, "default") if one["kind"] == "StatefulSet")
    pod = group["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (models,) = (volume for volume in pod["volumes"] if volume["name"] == "models")
    assert models == {"name": "models", "persistentVolumeClaim": {"claimName": "sdxl-models"}}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "HF_TOKEN" in {entry["name"] for entry in container["env"]}


@pytest.mark.parametrize("name", [name for name in FILES if "builtin://scenes" in (EXAMPLES / name).read_text()])
def test_example_of_a_builtin_model_draws_as_its_profile_was_measured(name: str) -> None:
    """Else the operator would not run it."""
    spec = parse_pool((EXAMPLES / name).read_text()).spec
    folder = builtin_folder(spec.model.source)
    assert folder is not None
    assert spec.choose_ladder(parse_profile((folder / "profile.json").read_text())).ladder.levels


def test_quick_start_holds_all_that_its_pool_names() -> None:
    """One file, one command: claim, token, and a profile that fits the pool's schedule and levels."""
    found = {one["kind"]: one for one in documents(EXAMPLES / QUICK_START)}
    pool = parse_pool(yaml.safe_dump(found["T2IServingPool"]))
    assert pool.spec.profile_ref is not None
    assert pool.spec.profile_ref.name == found["ConfigMap"]["metadata"]["name"]
    profile = parse_profile(found["ConfigMap"]["data"]["profile.json"])
    assert profile.base_steps == pool.spec.model.num_inference_steps
    measured = {loss.level for loss in profile.losses}
    assert set(pool.spec.ladder.levels) - {pool.spec.ladder.exact} == measured
    text = (EXAMPLES / QUICK_START).read_text()
    assert text.count("name: hf-token") == 2
    assert text.count(f"claimName: {found['PersistentVolumeClaim']['metadata']['name']}") == 1


def test_examples_fit_a_screen() -> None:
    """People read them in a terminal."""
    lines = {name: (EXAMPLES / name).read_text().splitlines() for name in FILES}
    assert {name for name, found in lines.items() if max(map(len, found)) > LINE} == set()
