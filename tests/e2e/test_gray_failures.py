"""Workers that stand still and packets that do not arrive: nothing says that anything is wrong, and yet."""

import asyncio
import functools
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import grpc
import pytest

from e2e_cluster import Cluster, Document, until
from e2e_faults import address_of, cut, frozen, slowed
from e2e_load import Load, prompts, recovery_s, steady, summary
from e2e_pools import GATEWAY_PORT, RunningPool
from e2e_report import record
from t2i_protos.v1 import gateway_pb2
from t2ictl.client import GatewayClient
from t2ictl.credentials import Proof
from t2ictl.errors import CallFailed

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("enterable")]
RATE_RPS = 4.0
SLO_S = 6.0
USUAL_S = 3.0
LASTS_S, AFTER_S = 20.0, 45.0  # a fault, and load after it
EJECTIONS = "t2i_gateway_worker_ejections_total"
READY = "t2i_gateway_ready_workers"


@dataclass(frozen=True, slots=True)
class Pace:
    """Workers `slower` times as slow as the embedded model: what a step of a full batch takes, about half of what
    three of them make, and what no request exceeds when all is well.
    """

    slower: int
    full_step_s: float
    rate_rps: float
    usual_s: float


#: A small model, and SDXL, whose images of 30 steps take 2.5 s on an H100 and 3.7 s on an A100 and batch for no gain
#: (stabilityai/stable-diffusion-xl-1.0-tensorrt, README): 0.33 and 0.49 s for a step of four.
FAST, LARGE = Pace(4, 0.10, RATE_RPS, USUAL_S), Pace(16, 0.39, 1.5, 5.0)
REPORT_S = 0.08  # workers of the fast pace sleep two steps of 0.039 s, or one of a larger batch, at a time
USUAL = pytest.mark.parametrize("simulated", [FAST.slower], indirect=True)
Fault = Callable[[Document], AbstractContextManager[None]]


async def left_out_and_back(
    pool: RunningPool, pace: Pace, fault: Fault, name: str, left_out: Callable[[], bool]
) -> dict[str, object]:
    """Load; a fault of one worker for 20 s; `left_out` comes true, what it holds is done elsewhere, and it serves again
    afterwards. No request is lost, and none is late but for those that had to move. The numbers.
    """
    before, restarts = pool.metric("gateway", EJECTIONS), pool.restarts()
    load = Load(pool.service_address)
    instants = steady(pace.rate_rps, 6 + LASTS_S + AFTER_S, seed=3)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(load.run(instants, prompts(len(instants), seed=3)))
        await asyncio.sleep(6)
        victim = (await asyncio.to_thread(pool.pods, "worker"))[0]
        with fault(victim):
            fault_s, begin = load.now_s(), time.monotonic()
            ejected_s = await asyncio.to_thread(until, "it is left out", left_out, LASTS_S)
            await asyncio.sleep(max(0.0, LASTS_S - (time.monotonic() - begin)))
        back = lambda: pool.metric("gateway", READY) == 6  # noqa: E731 - two gateways, three workers
        back_s = await asyncio.to_thread(until, "both gateways take it in again", back, 60)
    outcomes = sending.result()
    reasons = ("SlowSteps", "Stuck", "Silent")
    numbers = {**summary(outcomes, SLO_S), "recovery_s": recovery_s(outcomes, fault_s, pace.usual_s)}
    record(
        name,
        "simulated",
        **numbers,
        restarts=pool.restarts() - restarts,
        ejected_s=round(ejected_s, 1),
        three_steps_s=round(3 * pace.full_step_s, 2),
        ejections=pool.metric("gateway", EJECTIONS) - before,
        by_reason={one: pool.metric("gateway", EJECTIONS, f'reason="{one}"') for one in reasons},
        back_s=round(back_s, 1),
    )
    assert all(one.ok for one in outcomes), numbers
    assert all(one.moved for one in outcomes if one.latency_s > SLO_S), numbers
    return numbers


@pytest.mark.parametrize(
    ("simulated", "pace"),
    [(pace.slower, pace) for pace in (FAST, LARGE)],
    indirect=["simulated"],
    ids=["fast", "large"],
)
async def test_frozen_worker_is_left_out_and_comes_back(cluster: Cluster, simulated: RunningPool, pace: Pace) -> None:
    """SIGSTOP: its connections stay open, and nothing comes."""
    fault, name = functools.partial(frozen, cluster), f"worker frozen for 20 s, steps of {pace.full_step_s} s"
    left_out = lambda: simulated.metric("gateway", READY) <= 4  # noqa: E731 - two gateways, two workers each
    numbers = await left_out_and_back(simulated, pace, fault, name, left_out)
    assert numbers["over_slo"] == 0, numbers  # a second of silence is noticed, an image takes one or two more


@USUAL
async def test_slow_worker_is_left_out_and_comes_back(cluster: Cluster, simulated: RunningPool) -> None:
    """Ten times slower: it talks all the time, and every step comes. Its load says what they took."""
    fault, before = (
        functools.partial(slowed, cluster, factor=10, piece_s=REPORT_S),
        simulated.metric("gateway", EJECTIONS),
    )
    left_out = lambda: simulated.metric("gateway", EJECTIONS) > before  # noqa: E731
    name = f"worker 10x slow for 20 s, steps of {FAST.full_step_s} s"
    numbers = await left_out_and_back(simulated, FAST, fault, name, left_out)
    assert numbers["lost"] == 0, numbers
    assert numbers["over_slo"] == 0, numbers  # what is there when it is slow, or is sent on trial, is soon elsewhere


@USUAL
@pytest.mark.parametrize("direction", ["requests", "answers"])
async def test_partition_between_gateway_and_worker(cluster: Cluster, simulated: RunningPool, direction: str) -> None:
    """Packets one way are lost for 15 s, between one gateway and one worker: the other workers serve."""
    gateway = address_of(simulated.pods("gateway")[0])
    worker = address_of(simulated.pods("worker")[0])
    pair = (gateway, worker) if direction == "requests" else (worker, gateway)
    load = Load(f"{gateway}:{GATEWAY_PORT}")
    instants = steady(RATE_RPS, 45, seed=4)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(load.run(instants, prompts(len(instants), seed=4)))
        await asyncio.sleep(6)
        fault_s = load.now_s()
        with cut(cluster, pair):
            await asyncio.sleep(15)
        whole = lambda: simulated.metric("gateway", READY) == 6  # noqa: E731
        back_s = await asyncio.to_thread(until, "the worker is taken in again", whole, 60)
    outcomes = sending.result()
    numbers = {**summary(outcomes, SLO_S), "recovery_s": recovery_s(outcomes, fault_s, USUAL_S)}
    record(f"gateway to worker: {direction} lost", "simulated", **numbers, restarts=0, back_s=round(back_s, 1))
    assert all(one.ok for one in outcomes), numbers


@USUAL
@pytest.mark.parametrize("direction", ["requests", "answers"])
async def test_partition_between_gateway_and_api_server(
    cluster: Cluster, simulated: RunningPool, direction: str
) -> None:
    """For 20 s a gateway hears nothing of the API server: it serves by its last plan, and follows again afterwards."""
    pod = simulated.pods("gateway")[0]
    gateway, name = address_of(pod), pod["metadata"]["name"]
    assert cluster.local is not None
    api = cluster.local.places.control_address
    steps = 6 if direction == "requests" else 8
    load = Load(f"{gateway}:{GATEWAY_PORT}")
    instants = steady(RATE_RPS, 70, seed=5)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(load.run(instants, prompts(len(instants), seed=5)))
        await asyncio.sleep(6)
        fault_s = load.now_s()
        with cut(cluster, (gateway, api) if direction == "requests" else (api, gateway)):
            mix = {"mode": "Fixed", "workers": [{"numInferenceSteps": steps, "workers": 3}]}
            await asyncio.to_thread(simulated.change, {"mix": mix})
            await asyncio.sleep(20)
        revision = simulated.status()["plan"]["revision"]
        follows = lambda: simulated.metrics(name)[("t2i_gateway_plan_revision", "")] >= revision  # noqa: E731
        followed_s = await asyncio.to_thread(until, "the gateway follows the plan again", follows, 120)
    outcomes = sending.result()
    simulated.change({"mix": {"mode": "Auto", "workers": []}})
    numbers = {**summary(outcomes, SLO_S), "recovery_s": recovery_s(outcomes, fault_s, USUAL_S)}
    record(
        f"gateway to API server: {direction} lost", "simulated", **numbers, restarts=0, followed_s=round(followed_s, 1)
    )
    assert all(one.ok for one in outcomes), numbers


@USUAL
async def test_reply_lost_after_the_image_was_made(cluster: Cluster, simulated: RunningPool) -> None:
    """The client never hears of its image and asks again with the same request id: the same image, drawn once."""
    assert cluster.local is not None
    gateway = address_of(simulated.pods("gateway")[0])
    address, request_id = f"{gateway}:{GATEWAY_PORT}", str(uuid.uuid4())
    request = gateway_pb2.GenerateRequest(prompt=prompts(1, seed=6)[0].text, seed=7, request_id=request_id)
    drawn_before = simulated.metric("worker", "t2i_worker_requests_total")
    begin = time.monotonic()
    async with grpc.aio.insecure_channel(address) as channel:
        accepted = asyncio.Event()
        first = asyncio.create_task(
            GatewayClient(channel, address, Proof()).generate(request, 6.0, lambda event: accepted.set())
        )
        await asyncio.wait_for(accepted.wait(), 20)
        with cut(cluster, (gateway, cluster.local.places.host_address)), pytest.raises(CallFailed):
            await first
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        again = await GatewayClient(channel, address, Proof()).generate(request, 20.0)
    drawn = simulated.metric("worker", "t2i_worker_requests_total") - drawn_before
    record(
        "reply lost after the image was made",
        "simulated",
        sent=1,
        served=1,
        lost=0,
        retried=1,
        restarts=0,
        recovery_s=round(time.monotonic() - begin, 2),
        drawn=drawn,
        replayed=again.done.replayed,
    )
    assert again.done.replayed
    assert drawn == 1
