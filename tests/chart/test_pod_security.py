"""Every pod of the chart passes the restricted Pod Security Standard, asked of a real API server that enforces it."""

from typing import Any

import pytest

from helm_chart import GOLDEN, Document, Helm, of_kind
from t2i_testing_kit.kube.server import KubeServer


@pytest.fixture
def restricted(kube: KubeServer, namespace: str) -> str:
    """A namespace that admits nothing less."""
    kube.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    return namespace


def pods(objects: list[Document]) -> dict[str, Any]:
    """Kind of owner -> a pod as it would be made."""
    found: dict[str, Any] = {}
    for pod in of_kind(objects, "Pod"):
        found["Pod"] = {"metadata": {"name": "pod"}, "spec": pod["spec"]}
    for workload in of_kind(objects, "Deployment", "StatefulSet"):
        template = workload["spec"]["template"]
        found[workload["kind"]] = {"metadata": {**template["metadata"], "name": "pod"}, "spec": template["spec"]}
    return found


def admit(server: KubeServer, namespace: str, pod: Any) -> str:
    """Why the pod is refused; empty if it is not."""
    answer = server.call("POST", f"/api/v1/namespaces/{namespace}/pods?dryRun=All", pod)
    return "" if answer.ok else answer.message


@pytest.mark.parametrize("case", ["default", "everything"])
def test_pods_pass_restricted(helm: Helm, kube: KubeServer, restricted: str, case: str) -> None:
    """Operator, test pod and Valkey; for each, a single loosened field is refused, so the check can fail."""
    for owner, pod in pods(helm.objects("--values", str(GOLDEN / f"{case}.values.yaml"))).items():
        assert admit(kube, restricted, pod) == "", owner
        container = pod["spec"]["containers"][0]
        container["securityContext"]["allowPrivilegeEscalation"] = True
        assert "violates PodSecurity" in admit(kube, restricted, pod), owner


def test_root_file_systems_are_read_only(helm: Helm) -> None:
    """Not part of the standard, but of ours; so is that only the operator's pod carries a token."""
    for owner, pod in pods(helm.objects("--values", str(GOLDEN / "everything.values.yaml"))).items():
        assert all(one["securityContext"]["readOnlyRootFilesystem"] for one in pod["spec"]["containers"]), owner
        assert pod["spec"]["automountServiceAccountToken"] is (owner == "Deployment")
