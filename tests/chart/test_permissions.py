"""What the operator may do: all that its children need, nothing more; asked of a real API server's RBAC."""

import itertools
import json
import re
from collections.abc import Iterator

import pytest

from example_pools import children_of
from helm_chart import CASES, CHART, GOLDEN, ROOT, Document, Helm, of_kind
from t2i_testing_kit.kube.server import KubectlError, KubeServer

ROLES = ("Role", "ClusterRole")
ACCOUNT = "system:serviceaccount:{}:rights-t2i-serving-operator"
WATCHED, OTHER = "rights-watched", "rights-other"
#: What an operator of other people's workloads is often given, and ours is not.
NEVER = {"secrets", "pods/exec", "pods/attach", "pods/portforward", "nodes", "clusterroles", "clusterrolebindings"}


def rules(objects: list[Document]) -> list[Document]:
    """Of every role."""
    return [rule for role in of_kind(objects, *ROLES) for rule in role["rules"]]


@pytest.mark.parametrize("case", CASES)
def test_roles_have_no_wildcard_and_no_way_up(helm: Helm, case: str) -> None:
    """Also in the roles for people."""
    found = rules(helm.objects("--values", str(GOLDEN / f"{case}.values.yaml")))
    assert found
    for rule in found:
        words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert not any("*" in word for word in words), rule
        assert not words & {"escalate", "bind", "impersonate", *NEVER}, rule


def test_page_lists_what_the_role_grants(helm: Helm) -> None:
    """docs/permissions.md is what a security review reads."""
    page = (ROOT / "docs" / "permissions.md").read_text()
    listed = {
        (group.replace("core", ""), resource, tuple(verbs.split()))
        for group, resources, verbs in re.findall(r"^\| `([\w.]+)` \| `([^|]+)` \| `([^|]+)` \|", page, re.MULTILINE)
        for resource in resources.split()
    }
    roles = [role for role in of_kind(helm.objects(), *ROLES) if "-operator" in role["metadata"]["name"]]
    granted = {
        (rule["apiGroups"][0], resource, tuple(rule["verbs"]))
        for rule in rules(roles)
        for resource in rule["resources"]
    }
    assert listed == granted


@pytest.fixture(scope="module")
def rights(helm: Helm, kube: KubeServer) -> Iterator[KubeServer]:
    """Two releases: `rights` everywhere, in its own namespace; and one that watches a single namespace."""
    for name in (WATCHED, OTHER, "rights-all", "rights-one"):
        assert kube.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}}).ok
    admin = Helm(helm.program, helm.folder, kube.kubeconfig)
    common = ("install", "rights", str(CHART), "--set", "crds.enabled=false")
    admin.run(*common, "-n", "rights-all")
    admin.run(*common, "-n", "rights-one", "--set", f"operator.watchNamespaces={{{WATCHED}}}")
    yield kube
    for name in ("rights-all", "rights-one"):
        admin.run("uninstall", "rights", "-n", name)


def may(server: KubeServer, release: str, verb: str, resource: str, namespace: str, name: str = "") -> bool:
    """What the API server's authorizer says."""
    plain, _, sub = resource.partition("/")
    kind, _, group = plain.partition(".")
    asked = {"verb": verb, "resource": kind, "group": group, "subresource": sub, "namespace": namespace, "name": name}
    review = {"spec": {"user": ACCOUNT.format(release), "resourceAttributes": asked}}
    answer = server.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    assert answer.ok, answer.message
    return bool(answer.body["status"]["allowed"])


@pytest.mark.parametrize("release", ["rights-all", "rights-one"])
@pytest.mark.parametrize("example", ["pool.yaml", "pool-sdxl-gpu.yaml"])
def test_every_child_may_be_written(rights: KubeServer, release: str, example: str) -> None:
    """With server-side apply, as the operator's account; the gateway's Role too, which grants rights of its own."""
    for child in children_of(example, WATCHED):
        command = ("--as", ACCOUNT.format(release), "apply", "--server-side", "-f", "-")
        assert "serverside-applied" in rights.kubectl(*command, stdin=json.dumps(child))


def test_watching_one_namespace_reaches_no_other(rights: KubeServer) -> None:
    """Neither reads nor writes."""
    kinds = ("pods", "statefulsets.apps", "t2iservingpools.t2iserving.dev")
    for verb, resource in itertools.product(("get", "list", "create"), kinds):
        assert not may(rights, "rights-one", verb, resource, OTHER)
    assert may(rights, "rights-one", "list", "t2iservingpools.t2iserving.dev", WATCHED)
    assert may(rights, "rights-all", "list", "t2iservingpools.t2iserving.dev", OTHER)


def test_events_may_be_posted(rights: KubeServer) -> None:
    """Only where pools are watched, and only posted."""
    assert may(rights, "rights-one", "create", "events", WATCHED)
    assert not may(rights, "rights-one", "create", "events", OTHER)
    assert not may(rights, "rights-one", "delete", "events", WATCHED)


def test_lease_of_its_own_only(rights: KubeServer) -> None:
    """Another component's lease in the same namespace is safe from us."""
    for name, allowed in (("rights-t2i-serving-operator", True), ("kube-scheduler", False)):
        assert may(rights, "rights-all", "update", "leases.coordination.k8s.io", "rights-all", name) is allowed


def test_no_secrets_no_shell_no_way_up(rights: KubeServer) -> None:
    """And a Role that grants more than the operator has is refused by the API server."""
    for resource in NEVER:
        group = ".rbac.authorization.k8s.io" if resource.startswith("cluster") else ""
        for verb in ("get", "list", "create"):
            assert not may(rights, "rights-all", verb, resource + group, WATCHED), (verb, resource)
    assert not may(rights, "rights-all", "delete", "t2iservingpools.t2iserving.dev", WATCHED)
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "way-up", "namespace": WATCHED},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}],
    }
    with pytest.raises(KubectlError, match="attempting to grant RBAC permissions not currently held"):
        rights.kubectl("--as", ACCOUNT.format("rights-all"), "create", "-f", "-", stdin=json.dumps(role))


def test_people_who_edit_a_namespace_edit_its_pools(helm: Helm) -> None:
    """Through the built-in roles; nobody but the operator writes status. Aggregation itself is a controller's work."""
    roles = {role["metadata"]["name"].rpartition("-")[2]: role for role in of_kind(helm.objects(), "ClusterRole")}
    assert roles["view"]["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert roles["edit"]["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"
    assert {verb for rule in roles["view"]["rules"] for verb in rule["verbs"]} == {"get", "list", "watch"}
    assert {resource for rule in roles["edit"]["rules"] for resource in rule["resources"]} == {"t2iservingpools"}
