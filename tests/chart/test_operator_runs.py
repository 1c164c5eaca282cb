"""The operator as the chart starts it: with its arguments and only the rights it grants, on a real API server."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from example_pools import EXAMPLES, children_of
from helm_chart import CHART, ROOT, Helm, of_kind, parse
from t2i_testing_kit.kube.server import KubeServer
from t2i_testing_kit.programs import eventually

WITHIN_S = 120.0
POOL = "/apis/t2iserving.dev/v1alpha1/namespaces/{}/t2iservingpools/scenes"


def start(server: KubeServer, deployment: Any, folder: Path) -> subprocess.Popen[bytes]:
    """The container's command line, with free ports and the account's credentials in place of the pod's."""
    pod = deployment["spec"]["template"]["spec"]
    user = f"system:serviceaccount:{deployment['metadata']['namespace']}:{pod['serviceAccountName']}"
    listen = ["--metrics-listen=127.0.0.1:0", "--health-listen=127.0.0.1:0"]
    arguments = [*pod["containers"][0]["args"], *listen, f"--kubeconfig={server.user(user)}"]
    with (folder / "operator.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "t2i_operator", *arguments],
            env={**os.environ, "T2I_IDENTITY": "test"},
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )


def wait_for_conditions(server: KubeServer, namespace: str, process: subprocess.Popen[bytes]) -> int:
    """How many conditions the pool has, once it has all six or the operator has ended; looked for by `eventually`."""
    found: list[int] = [0]

    def complete() -> bool:
        pool = server.call("GET", POOL.format(namespace)).body
        found[0] = len(pool.get("status", {}).get("conditions", ()))
        return found[0] >= 6 or process.poll() is not None

    with suppress(AssertionError):  # told by the caller, with the operator's log
        eventually("all conditions", complete, WITHIN_S)
    return found[0]


@pytest.mark.process
@pytest.mark.parametrize("watched", [True, False], ids=["one-namespace", "everywhere"])
def test_pool_is_reconciled_with_the_charts_rights(
    helm: Helm, kube: KubeServer, namespace: str, tmp_path: Path, watched: bool
) -> None:
    """Every child written, status filled, the lease held, and nothing forbidden on the way."""
    admin = Helm(helm.program, helm.folder, kube.kubeconfig)
    where = ("--namespace", namespace)
    watch = f",operator.watchNamespaces={{{namespace}}}" if watched else ""
    admin.run("install", "runs", str(CHART), *where, "--set", f"crds.enabled=false{watch}")
    (deployment,) = of_kind(parse(admin.run("get", "manifest", "runs", *where)), "Deployment")
    deployment["metadata"]["namespace"] = namespace
    kube.kubectl("apply", *where, "-f", str(EXAMPLES / "pool.yaml"))
    process = start(kube, deployment, tmp_path)
    try:
        conditions = wait_for_conditions(kube, namespace, process)
    finally:
        process.terminate()
        process.wait(WITHIN_S)
        admin.run("uninstall", "runs", *where)
    log = (tmp_path / "operator.log").read_text()
    assert "orbidden" not in log
    assert conditions == 6, log
    for child in children_of("pool.yaml", namespace):
        kube.kubectl("get", child["kind"], child["metadata"]["name"], *where)
    assert "runs-t2i-serving-operator" in kube.kubectl("get", "leases", *where)
