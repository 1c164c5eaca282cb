"""Under load with real processes: tenants share, and the gateway plans its own pool."""

import asyncio
import urllib.request

import pytest

from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.serving import STEPS, Client, WritePool, load_until
from t2ictl.local_pool import LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio]
Request = gateway_pb2.GenerateRequest
STEP_S = 0.02


async def test_flood_of_one_tenant_does_not_hold_up_another(write_pool: WritePool) -> None:
    """Forty requests of one tenant wait; a later one of another tenant gets one of the next slots."""
    async with LocalPool(write_pool(workers=1, step_s=STEP_S, slo_ms=60_000)) as pool:
        client = Client(pool.address)
        done = 0

        async def flood(number: int) -> None:
            nonlocal done
            await client.done(Request(prompt=f"circle {number}", exact=True), limit_s=60, tenant="flood")
            done += 1

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(flood(number))
            await load_until(pool.workers[0].address, lambda load: load.running == 4)
            await client.done(Request(prompt="square", exact=True), limit_s=60, tenant="calm")
            assert done <= 16


async def test_gateway_plans_its_pool(write_pool: WritePool) -> None:
    """After some traffic there is a plan, and it goes by the demand that was seen."""
    async with LocalPool(write_pool(workers=2)) as pool:
        client = Client(pool.address)
        for number in range(5):
            await client.done(Request(prompt=f"circle {number}"))
        assert pool.gateway is not None
        async with asyncio.timeout(30):
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
        async with asyncio.timeout(30):
            while await asyncio.to_thread(read_metric, pool.gateway.metrics_address, "t2i_gateway_plan_revision") < 1:
                continue
        assert (await client.done(Request(prompt="circle"))).served.num_inference_steps == 10
        assert (await client.done(Request(prompt="square", exact=True))).served.num_inference_steps == STEPS


def read_metric(address: str, name: str) -> float:
    """One unlabelled metric."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))
