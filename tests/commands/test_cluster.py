"""`t2ictl` against a real API server: pools and plans as the operator wrote them, and the way to a gateway."""

import asyncio
import io
import os
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from rich.console import Console

from t2i_protos.v1 import gateway_pb2, gateway_pb2_grpc, level_pb2
from t2i_testing_kit.kube.server import KubeServer
from t2ictl.cluster import PoolName
from t2ictl.commands.cluster import show_plan, show_pools
from t2ictl.commands.request import show_explanation
from t2ictl.errors import ClusterFailed, InputInvalid
from t2ictl.forwarding import gateway_of
from t2ictl.target import CallTarget

POOLS = "/apis/t2iserving.dev/v1alpha1/namespaces/{}/t2iservingpools"
SPEC = {
    "model": {"source": "builtin://scenes", "numInferenceSteps": 12, "width": 48, "height": 48, "precision": "fp32"},
    "levels": [{"skippedSteps": 0}, {"skippedSteps": 6}],
    "workerGroups": [{"name": "cpu", "workers": 3}],
}


def condition(kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
    """As the operator writes it."""
    at = "2026-01-02T03:04:05Z"
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": at}


PLAN = {
    "revision": 7,
    "reason": "DemandChanged",
    "outcome": "SomeShed",
    "method": "Exact",
    "madeAt": "2026-01-02T03:04:05Z",
    "demandMilliRps": 12500,
    "shedMilliRps": 500,
    "qualityPercent": 93,
    "classes": [{"promptClass": "0.9", "milliRps": 8000}, {"promptClass": "none", "milliRps": 4500}],
    "placements": [
        {"group": "cpu", "skippedSteps": 0, "numInferenceSteps": 12, "workers": 1, "numbers": [2]},
        {"group": "cpu", "skippedSteps": 6, "numInferenceSteps": 12, "workers": 2, "numbers": [0, 1]},
    ],
    "shifts": [
        {"promptClass": "0.9", "skippedSteps": 6, "numInferenceSteps": 12, "sharePerMille": 1000},
        {"promptClass": "none", "skippedSteps": 0, "numInferenceSteps": 12, "sharePerMille": 889},
    ],
}


@pytest.fixture
def kubeconfig(kube: KubeServer, monkeypatch: pytest.MonkeyPatch) -> KubeServer:
    """The user's own, by the variable that everybody uses."""
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))
    return kube


def make_pool(server: KubeServer, namespace: str, status: dict[str, Any]) -> None:
    """A pool called `scenes` with a status."""
    document = {"apiVersion": "t2iserving.dev/v1alpha1", "kind": "T2IServingPool", "metadata": {"name": "scenes"}}
    made = server.call("POST", POOLS.format(namespace), {**document, "spec": SPEC})
    assert made.ok, made.message
    path = f"{POOLS.format(namespace)}/scenes/status"
    written = server.call("PATCH", path, {"status": status}, "application/merge-patch+json")
    assert written.ok, written.message


def screen() -> tuple[Console, io.StringIO]:
    """A wide terminal and what is on it."""
    text = io.StringIO()
    return Console(file=text, width=160, force_terminal=False), text


async def test_pools_shows_state_and_complaints(kubeconfig: KubeServer, namespace: str) -> None:
    """One line a pool; conditions that are not well in words, the others not."""
    conditions = [
        condition("Ready", "False", "NoCapacity", "2 of 3 workers wait for a node with nvidia.com/gpu: add nodes"),
        condition("Available", "True", "SomeWorkersReady", "1 worker serves"),
        condition("Degraded", "False", "AsExpected", "nothing"),
    ]
    make_pool(kubeconfig, namespace, {"conditions": conditions, "workers": 3, "readyWorkers": 1, "mix": "1x0 2x6"})
    console, text = screen()
    await show_pools(console, namespace)
    shown = text.getvalue()
    assert f"{namespace}/scenes" in shown
    assert "1/3" in shown
    assert "1x0 2x6 (Auto)" in shown
    assert "Ready=False NoCapacity: 2 of 3 workers wait for a node with nvidia.com/gpu: add nodes" in shown
    assert "Available=" not in shown
    assert "Degraded=" not in shown


async def test_pools_of_an_empty_namespace_says_what_to_do(kubeconfig: KubeServer, namespace: str) -> None:
    """Instead of an empty table."""
    console, text = screen()
    await show_pools(console, namespace)
    assert "kubectl apply" in text.getvalue()


async def test_plan_says_who_holds_which_model_and_who_moves(kubeconfig: KubeServer, namespace: str) -> None:
    """In pools of several models."""
    models = [
        {"name": "reference", "workers": 2, "ready": 1},
        {"name": "turbo", "workers": 1, "ready": 1, "reloadMilliseconds": 12_340},
    ]
    move = {"worker": "scenes-cpu-1", "fromModel": "reference", "toModel": "turbo", "reason": "it pays"}
    at = "2026-01-02T03:04:05.678Z"
    make_pool(kubeconfig, namespace, {"plan": PLAN, "models": models, "move": {**move, "orderedAt": at}})
    console, text = screen()
    await show_plan(console, PoolName(namespace, "scenes"))
    assert "12.3 s" in text.getvalue()
    assert f"scenes-cpu-1 gives up reference for turbo since {at}: it pays" in text.getvalue()


async def test_plan_says_why_this_mix(kubeconfig: KubeServer, namespace: str) -> None:
    """Traffic, reason, result, workers by level, prompts by level."""
    make_pool(kubeconfig, namespace, {"plan": PLAN})
    console, text = screen()
    await show_plan(console, PoolName(namespace, "scenes"))
    shown = text.getvalue()
    for part in ("plan 7", "DemandChanged", "Exact", "12.50 requests/s", "SomeShed", "0.50 requests/s shed", "93%"):
        assert part in shown, part
    assert "skipping 6 of 12 steps" in shown
    assert "0, 1" in shown
    assert "88.9%" in shown


async def test_plan_that_is_not_there_names_the_reason(kubeconfig: KubeServer, namespace: str) -> None:
    """From the condition; and a pool that is not there is another message."""
    make_pool(kubeconfig, namespace, {"conditions": [condition("Planned", "False", "NoWorkers", "no worker is ready")]})
    console, _ = screen()
    with pytest.raises(ClusterFailed, match="NoWorkers: no worker is ready"):
        await show_plan(console, PoolName(namespace, "scenes"))
    with pytest.raises(ClusterFailed, match=r"pool .*/other: 404 Not Found: check name and namespace"):
        await show_plan(console, PoolName(namespace, "other"))


async def test_no_rights_and_no_server_are_told_apart(kube: KubeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both with the next step."""
    console, _ = screen()
    monkeypatch.setenv("KUBECONFIG", str(kube.user("somebody")))
    with pytest.raises(ClusterFailed, match="403 Forbidden: ask for the role"):
        await show_pools(console, "default")
    monkeypatch.setenv("KUBECONFIG", str(kube.user("admin", ("system:masters",), url="https://127.0.0.1:9")))
    with pytest.raises(ClusterFailed, match="the API server does not answer"):
        await show_pools(console, "default")


def fake_kubectl(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl at the wire's place: without a kubelet the real one finds no pod to forward to."""
    program = folder / "kubectl"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\n{script}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder / "asked"


class Explaining(gateway_pb2_grpc.TextToImageServicer):
    """A gateway that answers."""

    async def Explain(self, request: Any, context: Any) -> gateway_pb2.ExplainResponse:
        exact = level_pb2.Level(num_inference_steps=20)
        decision = gateway_pb2.Decision(wanted=exact, served=exact)
        return gateway_pb2.ExplainResponse(decision=decision, refusal=f"asked about {request.request.prompt}")


def gateway_service(server: KubeServer, namespace: str) -> None:
    """As the operator makes it."""
    labels = {"t2iserving.dev/pool": "scenes", "app.kubernetes.io/component": "gateway"}
    service = {"metadata": {"name": "scenes-gateway", "labels": labels}, "spec": {"ports": [{"port": 50051}]}}
    assert server.call("POST", f"/api/v1/namespaces/{namespace}/services", service).ok


async def test_explain_reaches_a_pool_by_its_name(
    kubeconfig: KubeServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Service is found by label, the port kubectl chose is called, and kubectl ends with the command."""
    gateway_service(kubeconfig, namespace)
    server = grpc.aio.server()
    gateway_pb2_grpc.add_TextToImageServicer_to_server(Explaining(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    script = f"echo $$ > {tmp_path}/pid\necho 'Forwarding from 127.0.0.1:{port} -> 50051'\nexec sleep 60"
    asked = fake_kubectl(tmp_path, script, monkeypatch)
    console, text = screen()
    try:
        request = gateway_pb2.GenerateRequest(prompt="a red ring")
        await show_explanation(console, CallTarget("nowhere:1", f"{namespace}/scenes"), request, 10.0)
    finally:
        await server.stop(None)
    assert "asked about a red ring" in text.getvalue()
    assert (
        f"port-forward --address=127.0.0.1 --namespace={namespace} service/scenes-gateway :50051" in asked.read_text()
    )
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_no_way_to_the_gateway_says_why(
    kubeconfig: KubeServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pool, no gateway yet, kubectl's own refusal, no kubectl: four messages."""

    async def reach() -> None:
        async with asyncio.timeout(60), gateway_of(f"{namespace}/scenes", ""):
            pass

    with pytest.raises(ClusterFailed, match="404"):
        await reach()
    make_pool(kubeconfig, namespace, {})
    with pytest.raises(ClusterFailed, match="has no gateway yet"):
        await reach()
    gateway_service(kubeconfig, namespace)
    fake_kubectl(tmp_path, "echo 'error: timed out waiting for the condition'; exit 1", monkeypatch)
    with pytest.raises(ClusterFailed, match="failed: error: timed out waiting"):
        await reach()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(ClusterFailed, match=r"kubectl is not in PATH: install it, or .*--address"):
        await reach()


@pytest.mark.parametrize("text", ["scenes", "a/b/c", "/scenes", "default/"])
def test_pool_name_of_another_form_refused(text: str) -> None:
    """With an example of the right one."""
    with pytest.raises(InputInvalid, match="default/scenes"):
        PoolName.parse(text)


async def test_address_is_used_as_it_is_without_a_pool() -> None:
    """No API server is asked."""
    async with gateway_of("", "somewhere:50051") as address:
        assert address == "somewhere:50051"
