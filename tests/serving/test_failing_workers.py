"""Workers that fail what they are sent, over the wire: the gateway leaves them out, says so, and tries them again."""

import asyncio
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from failing_workers import FailingWorker, gateway_of
from t2i_gateway.service import SERVICE
from t2i_policy.failure_streak import FAILURES_IN_A_ROW
from t2i_policy.outliers import FIRST_PAUSE_S
from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.serving import WITHIN_S, Client, WritePool, metric, until
from t2ictl.processes import ServerProcess

pytestmark = [pytest.mark.process, pytest.mark.asyncio]
Request = gateway_pb2.GenerateRequest
LEFT_OUT = 't2i_gateway_left_out_workers{reason="Failing"}'
INTERNAL = grpc.StatusCode.INTERNAL
Status = health_pb2.HealthCheckResponse


async def told(gateway: ServerProcess, service: str, status: "Status.ServingStatus.ValueType") -> None:
    """Wait until the gateway's health service says so."""
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        async for reply in stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=WITHIN_S):
            if reply.status == status:
                return
    raise AssertionError(f"never {status}")


def trials(seconds: float) -> int:
    """Pauses of 2, 4, 8 ... s that may have ended by then."""
    count, at_s = 0, FIRST_PAUSE_S
    while at_s <= seconds:
        count, at_s = count + 1, 2 * at_s + FIRST_PAUSE_S
    return count


async def test_broken_worker_costs_no_more_than_three_tries(write_pool: WritePool) -> None:
    """Every request is drawn; after three failures in a row the broken worker gets one on trial a pause."""
    workers = [
        FailingWorker("bad", lambda *_: INTERNAL),
        FailingWorker("good", lambda *_: None),
    ]
    async with gateway_of(write_pool(), workers) as gateway:
        client = Client(gateway.address)
        await told(gateway, SERVICE, Status.SERVING)
        began_s = time.monotonic()
        drawn = [await client.events(Request(prompt=f"circle {number}")) for number in range(40)]
        done = [events[-1].done for events in drawn]
        most = FAILURES_IN_A_ROW + trials(time.monotonic() - began_s)
        assert FAILURES_IN_A_ROW <= len(workers[0].prompts) <= most
        assert sum(one.retries for one in done) == len(workers[0].prompts)
        for events in drawn:
            steps = [event.progress.step for event in events if event.HasField("progress")]
            assert steps == sorted({*steps}), "a request that moved tells no step again"
        assert await metric(gateway, 't2i_gateway_worker_ejections_total{reason="Failing"}') >= 1
        await until("the gauge tells", lambda: metric(gateway, LEFT_OUT), lambda count: count == 1)
        await client.channel.close()


async def test_gateway_does_not_serve_when_every_worker_fails(write_pool: WritePool) -> None:
    """Health says so to clients and the kubelet; after the pause requests may come, and the mended workers are back."""
    broken = [True]
    workers = [FailingWorker(name, lambda *_: INTERNAL if broken[0] else None) for name in ("one", "other")]
    async with gateway_of(write_pool(), workers) as gateway:
        client = Client(gateway.address)
        await told(gateway, SERVICE, Status.SERVING)
        unwell = asyncio.create_task(told(gateway, SERVICE, Status.NOT_SERVING))  # it lasts no longer than a pause
        for number in range(2 * FAILURES_IN_A_ROW):
            assert (await client.refusal(Request(prompt=f"circle {number}"))).code() is grpc.StatusCode.UNAVAILABLE
        await unwell
        sent = len(workers[0].prompts) + len(workers[1].prompts)
        assert sent == 4 * FAILURES_IN_A_ROW
        broken[0] = False
        await told(gateway, "", Status.SERVING)
        for number in range(20):
            assert (await client.done(Request(prompt=f"square {number}"))).retries == 0

        async def left_out() -> float:
            return await metric(gateway, LEFT_OUT)

        await until("both workers are back", left_out, lambda count: count == 0)
        await client.channel.close()


async def test_bad_prompt_takes_no_worker_out(write_pool: WritePool) -> None:
    """It fails on every worker, as often as it is sent; others are drawn at the first try."""
    workers = [
        FailingWorker(name, lambda _, prompt: INTERNAL if prompt == "bad" else None) for name in ("one", "other")
    ]
    async with gateway_of(write_pool(), workers) as gateway:
        client = Client(gateway.address)
        await told(gateway, SERVICE, Status.SERVING)
        for _ in range(10):
            assert (await client.refusal(Request(prompt="bad"))).code() is grpc.StatusCode.UNAVAILABLE
        done = [await client.done(Request(prompt=f"circle {number}")) for number in range(10)]
        assert [one.retries for one in done] == [0] * 10
        assert await metric(gateway, 't2i_gateway_worker_ejections_total{reason="Failing"}') == 0
        await client.channel.close()
