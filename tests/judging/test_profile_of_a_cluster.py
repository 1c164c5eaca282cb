"""`t2ictl profile --pool NAMESPACE/NAME` against a real API server: the pool's own workers, and its ConfigMap.

Only `kubectl port-forward` is played: without a kubelet there is no pod to forward to.
"""

import base64
import datetime
import io
import json
import stat
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from rich.console import Console

from t2i_policy.judge_record import JudgeRecord
from t2i_policy.level import Level
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_profiler.errors import MeasurementFailed
from t2i_profiler.measure import Asking
from t2i_profiler.worker_client import connect_workers
from t2i_protos.v1 import worker_pb2, worker_pb2_grpc
from t2i_testing_kit.kube.server import KubeServer
from t2i_testing_kit.mounted_secrets import TestAuthority, mount
from t2ictl.cluster import PoolName
from t2ictl.cluster_profile import publish_profile, spec_in_cluster, target_in_cluster
from t2ictl.commands.profile import profile_in_cluster
from t2ictl.errors import ClusterFailed, InputInvalid
from t2ictl.processes import ServerProcess
from t2ictl.profiling import ProfilePlan

POOLS = "/apis/t2iserving.dev/v1alpha1/namespaces/{}/t2iservingpools"
SECURITY = {"gatewayClientTlsSecretName": "c", "workerTlsSecretName": "w"}
SPEC: dict[str, Any] = {
    "model": {"source": "builtin://scenes", "numInferenceSteps": 12, "width": 48, "height": 48, "precision": "fp32"},
    "workerGroups": [{"name": "cpu", "workers": 2}],
}
PROFILE = LevelProfile(
    "digest", "cpu", 12, (0.01,), 0.0, (BandLoss(Level(0, 6), -1, 1.01, 0.1, 0.01, 20),),
    judge=JudgeRecord("pickscore", "hf://a/b", "one"),
)  # fmt: skip


class Describing(worker_pb2_grpc.WorkerServicer):
    """A worker that says who it is."""

    async def Describe(self, request: Any, context: Any) -> worker_pb2.WorkerDescription:
        return worker_pb2.WorkerDescription(name="scenes-cpu-0")

    async def WatchLoad(self, request: Any, context: Any) -> AsyncIterator[worker_pb2.WorkerLoad]:
        yield worker_pb2.WorkerLoad(ready=True, batch_cap=2)


@pytest.fixture
def cluster(kube: KubeServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> KubeServer:
    monkeypatch.setenv("KUBECONFIG", str(kube.kubeconfig))
    return kube


def make_pool(server: KubeServer, namespace: str, **more: Any) -> PoolName:
    document = {"apiVersion": "t2iserving.dev/v1alpha1", "kind": "T2IServingPool", "metadata": {"name": "scenes"}}
    made = server.call("POST", POOLS.format(namespace), {**document, "spec": {**SPEC, **more}})
    assert made.ok, made.message
    return PoolName(namespace, "scenes")


def make_worker(server: KubeServer, namespace: str, number: int, ready: bool) -> None:
    """A pod as the operator labels it, with the status that a kubelet would write."""
    path, name = f"/api/v1/namespaces/{namespace}/pods", f"scenes-cpu-{number}"
    labels = {"t2iserving.dev/pool": "scenes", "app.kubernetes.io/component": "worker"}
    spec = {"containers": [{"name": "worker", "image": "worker"}]}
    made = server.call("POST", path, {"metadata": {"name": name, "labels": labels}, "spec": spec})
    assert made.ok, made.message
    status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
    written = server.call("PATCH", f"{path}/{name}/status", {"status": status}, "application/merge-patch+json")
    assert written.ok, written.message


def play_kubectl(folder: Path, port: int | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is asked to forward to is reached at this port."""
    program = folder / "kubectl"
    said = f"echo 'Forwarding from 127.0.0.1:{port} -> 50051'"
    program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n{said}\nexec sleep 600\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


async def test_ready_workers_are_reached_one_by_one(
    cluster: KubeServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_pool(cluster, namespace)
    with pytest.raises(ClusterFailed, match="no ready worker"):
        async with target_in_cluster(name):
            pass
    for number, ready in enumerate((True, False)):
        make_worker(cluster, namespace, number, ready)
    server = grpc.aio.server()
    worker_pb2_grpc.add_WorkerServicer_to_server(Describing(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    play_kubectl(tmp_path, port, monkeypatch)
    async with target_in_cluster(name) as target, connect_workers(target.addresses) as workers:
        assert [one.description.name for one in workers] == ["scenes-cpu-0"]
        assert target.spec.base_steps == 12
    assert (tmp_path / "asked").read_text().split()[-2:] == ["pod/scenes-cpu-0", ":50051"]
    await server.stop(None)


async def test_the_profile_comes_into_the_config_map_of_the_pool(cluster: KubeServer, namespace: str) -> None:
    """Other keys stay. A pool that names no ConfigMap is told how to."""
    name = make_pool(cluster, namespace)
    spec = await spec_in_cluster(name)
    said = await publish_profile(name, spec, PROFILE, replace_judge=False)
    assert f"kubectl patch t2ip scenes --namespace {namespace}" in said
    path = f"/api/v1/namespaces/{namespace}/configmaps/scenes-profile"
    cluster.call("PATCH", path, {"data": {"note": "ours"}}, "application/merge-patch+json")
    again = replace(PROFILE, device="gpu")
    await publish_profile(name, spec, again, replace_judge=False)
    data = cluster.call("GET", path).body["data"]
    assert parse_profile(data["profile.json"]) == again
    assert data["note"] == "ours"


async def test_another_judges_profile_is_not_written_over_unasked(cluster: KubeServer, namespace: str) -> None:
    """Floors would mean something else. One of before, without a judge, may go."""
    name = make_pool(cluster, namespace, profileRef={"name": "measured"})
    spec = await spec_in_cluster(name)
    old = json.loads(render_profile(PROFILE))
    del old["judge"]
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    made = cluster.call("POST", path, {"metadata": {"name": "measured"}, "data": {"profile.json": json.dumps(old)}})
    assert made.ok, made.message
    await publish_profile(name, spec, PROFILE, replace_judge=False)
    other = replace(PROFILE, judge=JudgeRecord("pickscore", "hf://a/b", "two"))
    with pytest.raises(InputInvalid, match=r"pickscore \(one\) and pickscore \(two\).*--replace-judge"):
        await publish_profile(name, spec, other, replace_judge=False)
    await publish_profile(name, spec, other, replace_judge=True)
    data = cluster.call("GET", f"{path}/measured").body["data"]
    assert parse_profile(data["profile.json"]).judge == other.judge


def gateway_of(name: PoolName) -> str:
    """The name in its gateways' certificate."""
    return f"scenes-gateway.{name.namespace}.svc"


def make_secret(server: KubeServer, namespace: str, files: dict[str, bytes]) -> None:
    """The gateways' certificate, as cert-manager keeps it."""
    data = {name: base64.b64encode(content).decode() for name, content in files.items()}
    made = server.call("POST", f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "c"}, "data": data})
    assert made.ok, made.message


@pytest.mark.process
@pytest.mark.timeout(900)
async def test_workers_that_let_in_gateways_only_are_measured_as_one(
    cluster: KubeServer, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real worker with mutual TLS: in clear it answers nobody. The gateways' certificate comes out of their Secret,
    or out of a folder; at the end the ConfigMap holds what was measured.
    """
    model = {**SPEC["model"], "numInferenceSteps": 4}
    levels = [{"skippedSteps": 0}, {"numInferenceSteps": 2}]
    groups = [{"name": "cpu", "workers": 1}]
    spec = {"model": model, "levels": levels, "workerGroups": groups, "security": SECURITY}
    name, inside = make_pool(cluster, namespace, **spec), TestAuthority("inside")
    make_worker(cluster, namespace, 0, ready=True)
    make_secret(cluster, namespace, inside.issue(gateway_of(name)))
    document = {"apiVersion": "t2iserving.dev/v1alpha1", "kind": "T2IServingPool", "metadata": {"name": "scenes"}}
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump({**document, "spec": spec}))
    tls = mount(tmp_path / "w-tls", inside.issue(f"scenes-workers.{namespace}.svc"))
    arguments = ["--pool", str(tmp_path / "pool.yaml"), "--group", "cpu", "--name", "scenes-cpu-0", "--threads", "1"]
    arguments += ["--store", (tmp_path / "latents").as_uri(), "--tls-dir", str(tls), "--gateway-name", gateway_of(name)]
    worker = ServerProcess("w0", "t2i_worker", arguments, tmp_path)
    await worker.start()
    try:
        await worker.wait_ready(300)
        play_kubectl(tmp_path, worker.address.rpartition(":")[2], monkeypatch)
        async with target_in_cluster(name) as target:
            with pytest.raises(MeasurementFailed, match="UNAVAILABLE"):
                async with connect_workers(target.addresses):
                    pass
        own = mount(tmp_path / "own", inside.issue(gateway_of(name)))
        async with (
            target_in_cluster(name, own) as target,
            connect_workers(target.addresses, open_channel=target.open_channel) as (client,),
        ):
            assert client.description.name == "scenes-cpu-0"
        out = tmp_path / "p.json"
        plan = ProfilePlan(
            prompts=None,
            embedder=None,
            judges=(),
            num_kept=8,
            num_asked=8,
            seed=1,
            asking=Asking(1),
            journal=out.with_suffix(".journal"),
            yields=True,
        )
        await profile_in_cluster(Console(file=io.StringIO()), plan, name, None, out, False, False)
    finally:
        await worker.stop(20)
    written = cluster.call("GET", f"/api/v1/namespaces/{namespace}/configmaps/scenes-profile").body["data"]
    assert {band.level for band in parse_profile(written["profile.json"]).losses} == {Level(0, 2)}


async def test_a_certificate_that_workers_would_refuse_is_told_before_anything_is_drawn(
    cluster: KubeServer, namespace: str, tmp_path: Path
) -> None:
    """Each names where the certificate is from, and what it lacks."""
    name, inside = make_pool(cluster, namespace, security=SECURITY), TestAuthority("inside")
    with pytest.raises(ClusterFailed, match="Secret c: 404"):
        await told(name)
    make_secret(cluster, namespace, {"tls.crt": b"x"})
    with pytest.raises(InputInvalid, match=r"gatewayClientTlsSecretName: Secret c has no tls.key and no ca.crt"):
        await told(name)
    with pytest.raises(InputInvalid, match=r"--tls-dir: .*tls.crt cannot be read"):
        await told(name, tmp_path)
    with pytest.raises(InputInvalid, match=rf"--tls-dir: the certificate must be for {gateway_of(name)}"):
        await told(name, mount(tmp_path / "other", inside.issue("scenes-gateway.elsewhere.svc")))
    ended = inside.issue(gateway_of(name), ends=-datetime.timedelta(hours=1))
    with pytest.raises(InputInvalid, match="--tls-dir: the certificate has expired"):
        await told(name, mount(tmp_path / "ended", ended))


async def test_a_folder_of_certificates_for_workers_that_ask_for_none_is_a_mistake(
    cluster: KubeServer, namespace: str, tmp_path: Path
) -> None:
    name = make_pool(cluster, namespace)
    with pytest.raises(InputInvalid, match=r"--tls-dir: workers of pool .* ask for no certificate"):
        await told(name, tmp_path)


async def told(name: PoolName, tls_dir: Path | None = None) -> None:
    """What `t2ictl profile` does first."""
    async with target_in_cluster(name, tls_dir):
        raise AssertionError("workers are called")
