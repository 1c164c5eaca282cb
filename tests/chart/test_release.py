"""The life of a release with the real helm on a real API server. There is no kubelet, so nothing waits for pods."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from example_pools import EXAMPLES
from helm_chart import CHART, Helm, HelmError, of_kind, parse
from t2i_testing_kit.kube.server import KubeServer, kube_server

WHERE = ("--namespace", "t2i-system")
DEPLOYMENT = "/apis/apps/v1/namespaces/t2i-system/deployments/t2i-t2i-serving-operator"
POOLS = "/apis/t2iserving.dev/v1alpha1/namespaces/default/t2iservingpools"


@pytest.fixture(scope="module")
def cluster(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    """A cluster that never saw our CRD: the chart brings it."""
    with kube_server(tmp_path_factory.mktemp("release"), crds=False) as server:
        yield server


@pytest.fixture(scope="module")
def admin(helm: Helm, cluster: KubeServer) -> Helm:
    """helm as its administrator."""
    return Helm(helm.program, helm.folder, cluster.kubeconfig)


def replicas(server: KubeServer) -> int:
    """Of the operator."""
    answer = server.call("GET", DEPLOYMENT)
    assert answer.ok, answer.message
    return int(answer.body["spec"]["replicas"])


def left_of(server: KubeServer, manifest: str) -> set[tuple[str, str]]:
    """Kind and name of a release's objects that exist."""
    found = server.kubectl("get", "--filename", "-", "--ignore-not-found", "--output", "json", *WHERE, stdin=manifest)
    if not found:
        return set()
    parsed = json.loads(found)
    return {(entry["kind"], entry["metadata"]["name"]) for entry in parsed.get("items", [parsed])}


def names(manifest: str) -> set[tuple[str, str]]:
    """Kind and name of every object of a release."""
    return {(entry["kind"], entry["metadata"]["name"]) for entry in parse(manifest)}


def test_install_upgrade_rollback_uninstall(admin: Helm, cluster: KubeServer) -> None:
    """Each step does what it says, a pool outlives the release, and a second install takes it over again."""
    output = admin.run("install", "t2i", str(CHART), *WHERE, "--create-namespace")
    notes = output[output.index("NOTES:") :]
    assert "helm test t2i --namespace t2i-system" in notes
    assert "kubectl apply --filename examples/pool.yaml" in notes
    assert "t2ictl generate" in notes
    manifest = admin.run("get", "manifest", "t2i", *WHERE)
    assert left_of(cluster, manifest) == names(manifest)
    assert replicas(cluster) == 2
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/t2iservingpools.t2iserving.dev")
    cluster.kubectl("apply", "-f", str(EXAMPLES / "pool.yaml"))

    everything = ("--set", "operator.replicas=3,valkey.enabled=true,monitoring.dashboards.enabled=true")
    admin.run("upgrade", "t2i", str(CHART), *WHERE, *everything)
    assert replicas(cluster) == 3
    upgraded = admin.run("get", "manifest", "t2i", *WHERE)
    assert left_of(cluster, upgraded) == names(upgraded)
    assert names(upgraded) - names(manifest)

    admin.run("rollback", "t2i", "1", *WHERE)
    assert replicas(cluster) == 2
    assert left_of(cluster, upgraded) == names(manifest)

    admin.run("uninstall", "t2i", *WHERE)
    assert left_of(cluster, upgraded) == {("CustomResourceDefinition", "t2iservingpools.t2iserving.dev")}
    assert [pool["metadata"]["name"] for pool in cluster.call("GET", POOLS).body["items"]] == ["scenes"]

    admin.run("install", "t2i", str(CHART), *WHERE)
    assert left_of(cluster, manifest) == names(manifest)
    admin.run("uninstall", "t2i", *WHERE)


def test_another_release_takes_over_the_crd_that_stayed(admin: Helm, cluster: KubeServer) -> None:
    """Helm refuses what another release made; the README's flag is the way."""
    other = ("--namespace", "t2i-other", "--create-namespace")
    admin.run("install", "t2i", str(CHART), *WHERE, "--create-namespace")
    admin.run("uninstall", "t2i", *WHERE)
    with pytest.raises(HelmError, match="invalid ownership metadata"):
        admin.run("install", "other", str(CHART), *other)
    notes = admin.run("install", "other", str(CHART), *other, "--take-ownership")
    assert "--take-ownership" in notes
    admin.run("uninstall", "other", *other[:2])
    admin.run("install", "t2i", str(CHART), *WHERE, "--take-ownership")
    admin.run("uninstall", "t2i", *WHERE)


def test_refused_values_leave_the_release_alone(admin: Helm, cluster: KubeServer) -> None:
    """A wrong value ends an upgrade before the first write."""
    admin.run("install", "t2i", str(CHART), *WHERE)
    with pytest.raises(HelmError, match="replicas"):
        admin.run("upgrade", "t2i", str(CHART), *WHERE, "--set", "operator.replicas=0")
    history = json.loads(admin.run("history", "t2i", *WHERE, "--output", "json"))
    assert [(entry["revision"], entry["status"]) for entry in history] == [(1, "deployed")]
    admin.run("uninstall", "t2i", *WHERE)


def test_upgrade_brings_a_newer_crd(admin: Helm, cluster: KubeServer, tmp_path: Path) -> None:
    """Files under a chart's crds/ would never be upgraded; templates are. A copy stands in for the former release."""
    older = tmp_path / "older"
    shutil.copytree(CHART, older)
    path = older / "files" / "crds" / "t2iservingpools.yaml"
    path.write_text(path.read_text().replace("shortNames:\n    - t2ip", "shortNames:\n    - older"))
    admin.run("install", "t2i", str(older), *WHERE)
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/t2iservingpools.t2iserving.dev"
    assert cluster.call("GET", crd).body["spec"]["names"]["shortNames"] == ["older"]
    admin.run("upgrade", "t2i", str(CHART), *WHERE)
    assert cluster.call("GET", crd).body["spec"]["names"]["shortNames"] == ["t2ip"]
    admin.run("uninstall", "t2i", *WHERE)


def test_two_releases_live_side_by_side(admin: Helm, cluster: KubeServer) -> None:
    """In two namespaces, each watching its own: cluster-wide names carry the release's namespace."""
    for name in ("red", "blue"):
        assert cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}}).ok
        where = ("--namespace", f"t2i-{name}", "--create-namespace")
        settings = f"operator.watchNamespaces={{{name}}},crds.enabled=false"
        admin.run("install", "t2i", str(CHART), *where, "--set", settings)
    for name in ("red", "blue"):
        manifest = admin.run("get", "manifest", "t2i", "--namespace", f"t2i-{name}")
        assert of_kind(parse(manifest), "Deployment")
        admin.run("uninstall", "t2i", "--namespace", f"t2i-{name}")
