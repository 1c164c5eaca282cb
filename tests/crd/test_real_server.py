"""The test server itself: real, closed to strangers, with or without controllers, and gone when the tests are."""

import subprocess
import sys
from pathlib import Path

import pytest
import urllib3

from t2i_testing_kit.kube.server import KubectlError, KubeServer, kube_server
from t2i_testing_kit.programs import eventually

SERVE_UNTIL_KILLED = """
import sys
from pathlib import Path
from t2i_testing_kit.kube.server import kube_server
with kube_server(Path(sys.argv[1]), crds=False) as server:
    print(*(program.pid for program in server.programs.values()), flush=True)
    sys.stdin.read()
"""


def runs(pid: int) -> bool:
    """True if the process is there and no zombie."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip() not in ("", "Z", "Z+", "Zs")


def test_roles_are_enforced(kube: KubeServer) -> None:
    """A user without a role may do nothing, with one may do what it says and no more."""
    stranger = kube.user("stranger")
    with pytest.raises(KubectlError, match=r"[Ff]orbidden"):
        kube.kubectl("get", "configmaps", "--kubeconfig", str(stranger))
    kube.kubectl("create", "clusterrole", "reader", "--verb=get,list", "--resource=configmaps")
    kube.kubectl("create", "clusterrolebinding", "reader", "--clusterrole=reader", "--user=stranger")
    eventually("the role counts", lambda: may_list(kube, stranger))
    with pytest.raises(KubectlError, match=r"[Ff]orbidden"):
        kube.kubectl("create", "configmap", "a", "--kubeconfig", str(stranger))


def may_list(kube: KubeServer, user: Path) -> bool:
    """True if the user may list config maps."""
    try:
        kube.kubectl("get", "configmaps", "--kubeconfig", str(user))
    except KubectlError:
        return False
    return True


def test_strangers_without_certificate_are_refused(kube: KubeServer) -> None:
    """No anonymous access to resources."""
    with urllib3.PoolManager(ca_certs=str(kube.ca_file)) as pool:
        assert pool.request("GET", f"{kube.url}/api/v1/configmaps", timeout=60).status == 403


def test_tells_its_version(kube: KubeServer) -> None:
    """Charts that ask for a version of Kubernetes get the real one."""
    assert kube.call("GET", "/version").body["gitVersion"].startswith("v1.")


def test_restart_keeps_data(tmp_path: Path) -> None:
    """The API server may die and come back on the same address with everything it knew."""
    with kube_server(tmp_path, crds=False) as server:
        server.kubectl("create", "configmap", "kept")
        before = server.programs["kube-apiserver"].pid
        server.restart_apiserver()
        assert server.programs["kube-apiserver"].pid != before
        assert "kept" in server.kubectl("get", "configmaps", "-o", "name")
        pids = [program.pid for program in server.programs.values()]
    assert not any(runs(pid) for pid in pids)


def test_killed_test_run_leaves_no_process(tmp_path: Path) -> None:
    """Not even SIGKILL of the test run leaves an API server behind."""
    command = [sys.executable, "-c", SERVE_UNTIL_KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as test_run:
        assert test_run.stdout is not None
        pids = [int(pid) for pid in test_run.stdout.readline().split()]
        assert len(pids) == 2
        assert all(runs(pid) for pid in pids)
        test_run.kill()
    eventually("etcd and kube-apiserver are gone", lambda: not any(runs(pid) for pid in pids))


def test_controllers_collect_garbage(full_kube: KubeServer, full_namespace: str) -> None:
    """What the owner leaves behind goes with it, as on a cluster."""
    path = f"/api/v1/namespaces/{full_namespace}/configmaps"
    owner = full_kube.call("POST", path, {"metadata": {"name": "owner"}}).body
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    full_kube.call("POST", path, {"metadata": {"name": "child", "ownerReferences": [reference]}})
    full_kube.call("DELETE", f"{path}/owner", {"propagationPolicy": "Background"})
    eventually("the child is collected", lambda: full_kube.call("GET", f"{path}/child").status == 404)


def test_controllers_make_pods(full_kube: KubeServer, full_namespace: str) -> None:
    """A StatefulSet gets its pods, pending for want of a kubelet; their status is a test's to write."""
    labels = {"app": "demo"}
    container = {"name": "main", "image": "localhost/none:dev"}
    body = {
        "metadata": {"name": "demo"},
        "spec": {
            "serviceName": "demo",
            "replicas": 3,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    made = full_kube.call("POST", f"/apis/apps/v1/namespaces/{full_namespace}/statefulsets", body)
    assert made.ok, made.message
    pods = f"/api/v1/namespaces/{full_namespace}/pods"
    eventually("three pods", lambda: len(full_kube.call("GET", pods).body["items"]) == 3)
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    patched = full_kube.call("PATCH", f"{pods}/demo-0/status", ready, "application/strategic-merge-patch+json")
    assert patched.ok, patched.message
