"""Processes that die in the middle of work, by SIGKILL: no accepted request is lost, and everything comes back."""

import asyncio
import time
from collections.abc import Callable

import pytest

from e2e_cluster import Cluster, Document, is_ready, until
from e2e_faults import kill
from e2e_http import HttpLoad
from e2e_load import Load, Outcome, prompts, recovery_s, steady, summary
from e2e_pools import SYSTEM, RunningPool
from e2e_report import record

#: A thousand requests come in a minute, 0.87 of what the three workers make at full steps.
pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("enterable"),
    pytest.mark.parametrize("simulated", [2], indirect=True),
]
RATE_RPS = 17.5
SLO_S = 6.0
USUAL_S = 3.0
LASTS_S = 60.0


async def killed_under_load(
    cluster: Cluster, load: Load, choose: Callable[[], Document], all_ready: Callable[[], bool]
) -> tuple[list[Outcome], dict[str, object]]:
    """Load for a minute, a kill after a few seconds; outcomes and numbers."""
    instants = steady(RATE_RPS, LASTS_S, seed=1)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(load.run(instants, prompts(len(instants), seed=1)))
        await asyncio.sleep(6)
        victim = await asyncio.to_thread(choose)
        fault_s = load.now_s()
        await asyncio.to_thread(kill, cluster, victim)
        begin = time.monotonic()
        await asyncio.to_thread(until, "its restart is seen", lambda: not all_ready(), 20)
        await asyncio.to_thread(until, "all are Ready again", all_ready, 120)
        ready_s = round(time.monotonic() - begin, 1)
    outcomes = sending.result()
    numbers = {"recovery_s": recovery_s(outcomes, fault_s, USUAL_S), "ready_again_s": ready_s}
    return outcomes, {**summary(outcomes, SLO_S), **numbers}


async def test_worker_killed_mid_batch(cluster: Cluster, simulated: RunningPool) -> None:
    """The busiest one: what ran there runs elsewhere."""

    def busiest() -> Document:
        running = "t2i_worker_running_requests"
        pods = simulated.pods("worker")
        end = time.monotonic() + 20
        while time.monotonic() < end:
            loads = [simulated.metrics(pod["metadata"]["name"]).get((running, ""), 0.0) for pod in pods]
            if max(loads) > 0:
                return pods[loads.index(max(loads))]
        raise AssertionError("no worker is at work")

    restarts = simulated.restarts()
    load = Load(simulated.service_address)
    outcomes, numbers = await killed_under_load(cluster, load, busiest, lambda: simulated.ready("worker") == 3)
    record("worker killed mid-batch", "simulated", **numbers, restarts=simulated.restarts() - restarts)
    assert all(one.ok for one in outcomes), numbers
    assert simulated.restarts() - restarts == 1


@pytest.mark.parametrize("door", ["gRPC", "HTTP"])
async def test_gateway_killed(cluster: Cluster, simulated: RunningPool, door: str) -> None:
    """Its connections break; clients ask again with the same request id and are served by the other one."""
    restarts = simulated.restarts()
    load = Load(simulated.service_address) if door == "gRPC" else HttpLoad(simulated.http_address)
    outcomes, numbers = await killed_under_load(
        cluster, load, lambda: simulated.pods("gateway")[0], lambda: simulated.ready("gateway") == 2
    )
    scenario = "gateway killed" if door == "gRPC" else "gateway killed, HTTP clients"
    record(scenario, "simulated", **numbers, restarts=simulated.restarts() - restarts)
    assert all(one.ok for one in outcomes), numbers
    assert any(one.retries for one in outcomes), "nobody was connected to it: the test shows nothing"


async def test_operator_killed(cluster: Cluster, release: str, simulated: RunningPool) -> None:
    """The one that leads: requests do not notice, and another one takes over and carries out what is asked for."""

    def operators() -> list[Document]:
        return cluster.pods(SYSTEM, "operator")

    def leader() -> Document:
        (lease,) = cluster.get("leases", f"--namespace={SYSTEM}")["items"]
        return next(pod for pod in operators() if pod["metadata"]["name"] == lease["spec"]["holderIdentity"])

    load = Load(simulated.service_address)
    instants = steady(RATE_RPS, LASTS_S, seed=2)
    mix = {"mix": {"mode": "Fixed", "workers": [{"numInferenceSteps": 6, "workers": 3}]}}
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(load.run(instants, prompts(len(instants), seed=2)))
        await asyncio.sleep(6)
        victim = await asyncio.to_thread(leader)
        fault_s = load.now_s()
        await asyncio.to_thread(kill, cluster, victim)
        await asyncio.to_thread(simulated.change, mix)
        followed = lambda: simulated.status().get("mix") == "3x0/6"  # noqa: E731
        took_over_s = await asyncio.to_thread(until, "somebody carries out the new mix", followed, 90)
    outcomes = sending.result()
    simulated.change({"mix": {"mode": "Auto", "workers": []}})
    until("operators are Ready", lambda: all(is_ready(pod) for pod in operators()), 120)
    numbers = {**summary(outcomes, SLO_S), "recovery_s": recovery_s(outcomes, fault_s, USUAL_S)}
    record("operator killed", "simulated", **numbers, restarts=1, took_over_s=round(took_over_s, 1))
    assert all(one.ok for one in outcomes), numbers
    assert took_over_s < 60
