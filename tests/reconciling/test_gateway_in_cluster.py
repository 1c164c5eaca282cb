"""Operator, gateway and worker as in a cluster: the real API server between them, the network and the kubelet played.

The worker is simulated and everything else is what runs in production: the gateway finds it by EndpointSlice, the
operator finds the gateway's demand by its control port, the plan comes back by the pool's status.
"""

import json
import re
import socket
import urllib.request
from asyncio import to_thread
from pathlib import Path

import pytest

from operator_world import World, pool_document
from t2i_operator.server import Operator
from t2i_policy.profile_document import render_profile
from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.kube.proxy import FaultProxy
from t2i_testing_kit.programs import free_ports
from t2i_testing_kit.serving import Client, make_profile
from t2ictl.processes import ServerProcess

STEPS = 20
MODEL = {"source": "builtin://scenes", "numInferenceSteps": STEPS, "width": 48, "height": 48, "precision": "fp32"}
LEVELS = [{"skippedSteps": 0}, {"skippedSteps": 10}, {"numInferenceSteps": 10}]
LIMIT_S = 60.0
HEARD = "t2i_gateway_watch_heard_timestamp_seconds"


def host_address() -> str:
    """An address of this machine that an EndpointSlice may hold: not a loopback one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("203.0.113.1", 9))
        return str(probe.getsockname()[0])


async def metric(gateway: ServerProcess, name: str) -> float:
    """One of the gateway's metrics, summed over labels."""
    text = await to_thread(
        lambda: urllib.request.urlopen(f"http://{gateway.metrics_address}/metrics", timeout=LIMIT_S).read()
    )
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text.decode(), re.MULTILINE))


@pytest.mark.process
async def test_demand_reaches_the_operator_and_the_plan_comes_back(
    world: World, operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Load shifts: gateway counts, operator plans, gateway follows; then the API server goes away and comes back."""
    host, (control_port, _) = host_address(), free_ports(2)
    profile = tmp_path / "profile.json"
    profile.write_text(render_profile(make_profile((0.04,))))
    config = {"metadata": {"name": "measured"}, "data": {"profile.json": profile.read_text()}}
    await world.call("POST", f"/api/v1/namespaces/{world.namespace}/configmaps", config)
    groups = [{"name": "a", "workers": 1, "engine": "simulated"}]
    document = pool_document(model=MODEL, levels=LEVELS, workerGroups=groups, profileRef={"name": "measured"})
    await world.create(document)
    await world.wait("children", world.children, lambda found: len(found) == 12)
    pool_file = tmp_path / "pool.yaml"
    pool_file.write_text(json.dumps(document))
    shared = ["--pool", str(pool_file), "--profile", str(profile)]
    async with FaultProxy(world.server) as proxy:
        kubeconfig = world.server.user("gateway", ("system:masters",), proxy.url)
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        worker = ServerProcess(
            "worker", "t2i_worker", [*shared, "--group", "a", "--name", "p-a-0", "--listen", f"{host}:0"], tmp_path
        )
        place = ["--kubernetes", f"{world.namespace}/p", "--control-listen", f"{host}:{control_port}", "--local"]
        gateway = ServerProcess("gateway", "t2i_gateway", [*shared, *place], tmp_path)
        try:
            for process in (worker, gateway):
                await process.start()
                await process.wait_ready(LIMIT_S)
            await world.start_pod("StatefulSet/p-a", 0)
            await world.rolled_out("StatefulSet/p-a")
            slice_path = await world.publish_worker("p-a-x", worker.address)
            await world.start_played_pod("Deployment/p-gateway", host, control_port)
            await world.until_condition("Ready", "True")
            await world.wait("worker found", lambda: metric(gateway, "t2i_gateway_ready_workers"), lambda n: n == 1)
            client = Client(gateway.address)

            async def ask_and_look() -> dict[str, object]:
                await client.done(gateway_pb2.GenerateRequest(prompt="a red circle"), tenant="t")
                plan = (await world.pool())["status"]["plan"]
                return {**plan, "served": await metric(gateway, "t2i_gateway_plan_revision")}

            plan = await world.wait("a plan for demand", ask_and_look, lambda plan: plan["demandMilliRps"] > 0)
            assert plan["reason"] in ("DemandChanged", "PoolChanged")
            await world.wait("it is served by", ask_and_look, lambda plan: plan["served"] == plan["revision"])
            proxy.killed.set()  # the API server is away for the gateway
            proxy.drop_watches()
            await client.done(gateway_pb2.GenerateRequest(prompt="a red circle"), tenant="t")
            last_heard = await metric(gateway, HEARD)  # what was on the way is taken in by now
            assert await metric(gateway, "t2i_gateway_plan_revision") > 0
            await world.call("DELETE", slice_path)
            assert await metric(gateway, HEARD) == last_heard > 0
            proxy.revive()  # it is back, and what was missed is found
            await world.wait("it is heard again", lambda: metric(gateway, HEARD), lambda heard: heard > last_heard)
            await world.wait("worker left", lambda: metric(gateway, "t2i_gateway_ready_workers"), lambda n: n == 0)
            assert operator.registry.get_sample_value("t2i_operator_demand_polls_total", {"outcome": "OK"})
            await client.channel.close()
        finally:
            for process in (gateway, worker):
                await process.stop(10.0)
