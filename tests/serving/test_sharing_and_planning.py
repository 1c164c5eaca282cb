"""Under load with real processes: tenants share, and the gateway plans its own pool."""

import asyncio
import urllib.request

import pytest

from failing_workers import CAP, FailingWorker, gateway_of
from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.serving import STEPS, WITHIN_S, Client, WritePool, metric, until
from t2ictl.local_pool import LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio]
Request = gateway_pb2.GenerateRequest
FLOOD = 40


async def test_flood_of_one_tenant_does_not_hold_up_another(write_pool: WritePool) -> None:
    """Forty requests of one tenant wait; a later one of another tenant gets one of the next slots."""
    worker = FailingWorker("sim-0", lambda *_: None)
    worker.may_draw.clear()
    async with gateway_of(write_pool(workers=1, slo_ms=60_000), [worker]) as gateway:
        client = Client(gateway.address)

        async def told(name: str, value: int) -> None:
            await until(f"{name} is {value}", lambda: metric(gateway, name), lambda seen: seen == value)

        await told("t2i_gateway_ready_workers", 1)
        async with asyncio.TaskGroup() as group:
            for number in range(FLOOD):
                group.create_task(client.done(Request(prompt=f"circle {number}", exact=True), tenant="flood"))
            await told("t2i_gateway_queued_requests", FLOOD - CAP)
            group.create_task(client.done(Request(prompt="square", exact=True), tenant="calm"))
            await told("t2i_gateway_queued_requests", FLOOD - CAP + 1)
            worker.may_draw.set()
        assert len(worker.prompts) == FLOOD + 1
        assert worker.prompts.index("square") <= 2 * CAP
        await client.channel.close()


async def test_gateway_plans_its_pool(write_pool: WritePool) -> None:
    """After some traffic there is a plan, and it goes by the demand that was seen."""
    async with LocalPool(write_pool(workers=2)) as pool:
        client = Client(pool.address)
        for number in range(5):
            await client.done(Request(prompt=f"circle {number}"))
        assert pool.gateway is not None
        async with asyncio.timeout(WITHIN_S):
            while await asyncio.to_thread(read_metric, pool.gateway.metrics_address, "t2i_gateway_plan_revision") < 1:
                continue


async def test_gateway_serves_at_a_fixed_mix(write_pool: WritePool) -> None:
    """A gateway that plans for itself keeps to it as an operator's does: at rest, and exact for who asks for exact."""
    options = write_pool(workers=2)
    with options.pool_file.open("a") as file:
        file.write("  mix: {mode: Fixed, workers: [{numInferenceSteps: 10, workers: 2}]}\n")
    async with LocalPool(options) as pool:
        client = Client(pool.address)
        assert pool.gateway is not None
        async with asyncio.timeout(WITHIN_S):
            while await asyncio.to_thread(read_metric, pool.gateway.metrics_address, "t2i_gateway_plan_revision") < 1:
                continue
        assert (await client.done(Request(prompt="circle"))).served.num_inference_steps == 10
        assert (await client.done(Request(prompt="square", exact=True))).served.num_inference_steps == STEPS


def read_metric(address: str, name: str) -> float:
    """One unlabelled metric."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=WITHIN_S) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))
