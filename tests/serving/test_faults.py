"""Faults with real processes: workers killed, gateways drained, clients gone, pools full. Nothing hangs or is lost."""

import asyncio
import os
import signal
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from failing_workers import CAP, FailingWorker, gateway_of
from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.serving import WITHIN_S, Client, WritePool, detail, load_until, metric, read_to_end, until
from t2ictl.local_pool import LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio]
Request = gateway_pb2.GenerateRequest
SLOW_STEP_S = 0.2  # 20 of them: four seconds in which to break things
LONG_STEP_S, FEW_STEPS = 1.0, 4  # as long in all, and a worker that stands still for a step or two is not called slow
ENDLESS: dict[str, Any] = {"step_s": 10.0, "slo_ms": 1_000_000}  # of images that nobody waits for
LONG_S = 900.0  # for the whole of such an image


def kill(pool: LocalPool, index: int) -> None:
    """SIGKILL a worker of our own pool."""
    process = pool.workers[index].process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)


def few_steps(prompt: str) -> Request:
    """Of an image that takes four long steps."""
    return Request(prompt=prompt, num_inference_steps=FEW_STEPS)


async def test_killed_worker_loses_no_request(write_pool: WritePool) -> None:
    """Requests in a batch whose worker is killed are drawn by the other worker and say that they were moved."""
    async with LocalPool(write_pool(step_s=LONG_STEP_S, slo_ms=60_000)) as pool:
        client = Client(pool.address)
        sending = asyncio.gather(*(client.done(few_steps(f"circle {n}")) for n in range(8)))
        await asyncio.gather(*(load_until(w.address, lambda load: load.running == 4) for w in pool.workers))
        kill(pool, 0)
        done = await sending
        assert [one.retries for one in done].count(1) == 4
        assert [one.retries for one in done].count(0) == 4


async def test_frozen_worker_loses_no_request(write_pool: WritePool) -> None:
    """A worker that says nothing for three times what its steps take is given up; its requests move, it comes back."""
    async with LocalPool(write_pool(step_s=LONG_STEP_S, slo_ms=60_000)) as pool:
        client = Client(pool.address)
        sending = asyncio.gather(*(client.done(few_steps(f"circle {n}")) for n in range(8)))
        await asyncio.gather(*(load_until(w.address, lambda load: load.running == 4) for w in pool.workers))
        frozen = pool.workers[0].process
        assert frozen is not None
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            done = await sending
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
        assert [one.retries for one in done].count(1) == 4
        await load_until(pool.workers[0].address, lambda load: load.ready and load.running == 0)


async def test_all_workers_killed_is_unavailable(write_pool: WritePool) -> None:
    """With nobody left, requests in flight and new ones end in UNAVAILABLE; the gateway itself goes on."""
    async with LocalPool(write_pool(workers=1, **ENDLESS)) as pool:
        client = Client(pool.address)
        sending = asyncio.ensure_future(client.refusal(Request(prompt="circle", exact=True), LONG_S))
        await load_until(pool.workers[0].address, lambda load: load.running == 1)
        kill(pool, 0)
        assert (await sending).code() is grpc.StatusCode.UNAVAILABLE
        error = await client.refusal(Request(prompt="circle"))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert pool.gateway is not None
        assert pool.gateway.process is not None
        assert pool.gateway.process.returncode is None


async def test_restarted_worker_is_used_again(write_pool: WritePool) -> None:
    """`supervise` brings a killed worker back at its address, and the gateway finds it."""
    async with LocalPool(write_pool(workers=1)) as pool:
        watching = asyncio.ensure_future(pool.supervise())
        client = Client(pool.address)
        first = pool.workers[0].process
        kill(pool, 0)
        async with asyncio.timeout(WITHIN_S):
            while not await _serves(client) or pool.workers[0].process is first:
                continue
        watching.cancel()
        await asyncio.wait([watching])


async def _serves(client: Client) -> bool:
    try:
        one = await client.done(Request(prompt="circle", seed=1), limit_s=5)  # else it is asked again
        return bool(one.seed)
    except grpc.aio.AioRpcError:
        return False


async def test_disconnected_client_frees_its_slot(write_pool: WritePool) -> None:
    """A client goes away mid-way: the worker's batch is empty long before the image would have been done."""
    async with LocalPool(write_pool(workers=1, **ENDLESS)) as pool:
        client, address = Client(pool.address), pool.workers[0].address
        call = client.stub.Generate(Request(prompt="circle", exact=True), timeout=LONG_S)
        assert (await call.read()).HasField("accepted")
        await load_until(address, lambda load: load.running == 1)
        call.cancel()
        await load_until(address, lambda load: load.running == 0 and load.steps_left == 0)


async def test_full_queue_is_refused_with_a_time_to_come_back(write_pool: WritePool) -> None:
    """All slots and the one place in the queue are taken: the next is RESOURCE_EXHAUSTED with RetryInfo, the others are
    served. The worker draws when it is told to, so that all are there when the last one comes.
    """
    worker = FailingWorker("sim-0", lambda *_: None)
    worker.may_draw.clear()
    async with gateway_of(write_pool(workers=1, max_queued=1, slo_ms=60_000), [worker]) as gateway:
        client, calls = Client(gateway.address), []
        for number in range(CAP + 1):
            calls.append(client.stub.Generate(Request(prompt=f"circle {number}", exact=True), timeout=WITHIN_S))
            assert (await calls[-1].read()).HasField("accepted")
        queued = "t2i_gateway_queued_requests"
        await until("one waits", lambda: metric(gateway, queued), lambda count: count == 1)
        error = await client.refusal(Request(prompt="square", exact=True))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert detail(error, error_details_pb2.RetryInfo()).retry_delay.ToMilliseconds() > 0
        assert detail(error, error_details_pb2.ErrorInfo()).reason == "QueueFull"
        worker.may_draw.set()
        for call in calls:
            assert (await read_to_end(call))[-1].HasField("done")
        await client.channel.close()


async def test_unreachable_deadline_is_refused_at_once(write_pool: WritePool) -> None:
    """Less time than the fastest allowed level takes: DEADLINE_EXCEEDED, and the worker never saw it."""
    async with LocalPool(write_pool(workers=1, **ENDLESS)) as pool:
        client = Client(pool.address)
        error = await client.refusal(Request(prompt="circle", exact=True), limit_s=100)  # half of what it takes
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert detail(error, error_details_pb2.ErrorInfo()).reason == "DeadlineUnreachable"
        await load_until(pool.workers[0].address, lambda load: load.running == 0 and load.waiting == 0)


async def test_sigterm_drains_the_gateway(write_pool: WritePool) -> None:
    """Requests in flight get their image, new ones are UNAVAILABLE, then the process ends with 0."""
    async with LocalPool(write_pool(workers=1, step_s=SLOW_STEP_S)) as pool:
        client = Client(pool.address)
        assert pool.gateway is not None
        assert pool.gateway.process is not None
        call = client.stub.Generate(Request(prompt="circle", exact=True), timeout=WITHIN_S)
        assert (await call.read()).HasField("accepted")
        pool.gateway.process.send_signal(signal.SIGTERM)
        assert (await read_to_end(call))[-1].HasField("done")
        assert await pool.gateway.process.wait() == 0
        assert (await client.refusal(Request(prompt="circle"))).code() is grpc.StatusCode.UNAVAILABLE


async def test_load_bends_levels_before_it_refuses(write_pool: WritePool) -> None:
    """Who waits while a slow worker is full gets the short schedule because of load; none is refused. The worker draws
    when it is told to, so that it is full as long as others come.
    """
    worker = FailingWorker("sim-0", lambda *_: None)
    worker.step_ms = 1e3 * SLOW_STEP_S
    worker.may_draw.clear()
    async with gateway_of(write_pool(workers=1, step_s=SLOW_STEP_S, slo_ms=20_000), [worker]) as gateway:
        client = Client(gateway.address)
        first = [asyncio.ensure_future(client.done(Request(prompt=f"circle {n}", exact=True))) for n in range(CAP)]
        await until("it is full", lambda: asyncio.sleep(0, worker.running), lambda count: count == CAP)
        waiting = [client.stub.Generate(Request(prompt=f"square {n}"), timeout=WITHIN_S) for n in range(3 * CAP)]
        for call in waiting:
            assert (await call.read()).HasField("accepted")
        worker.may_draw.set()
        bent = [(await read_to_end(call))[-1].done for call in waiting]
        assert "Load" in {one.reason for one in bent}
        assert 10 in {one.served.num_inference_steps for one in bent}
        assert {(await one).served.num_inference_steps for one in first} == {20}
        await client.channel.close()


async def test_several_images_are_refused_together(write_pool: WritePool) -> None:
    """Where the queue has no room for the last of them, none is drawn, and the answer says so at once."""
    async with LocalPool(write_pool(workers=1, step_s=SLOW_STEP_S, cap=1, max_queued=2)) as pool:
        client = Client(pool.address)
        running = asyncio.ensure_future(client.done(Request(prompt="circle", exact=True)))
        await load_until(pool.workers[0].address, lambda load: load.running == 1)
        error = await client.refusal(Request(prompt="circle", num_images=4))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await running).served.num_inference_steps == 20
        await load_until(pool.workers[0].address, lambda load: load.running == 0 and load.waiting == 0)


async def test_leaving_frees_the_slots_of_all_images(write_pool: WritePool) -> None:
    """A client that goes away takes all of its images with it."""
    async with LocalPool(write_pool(workers=1, **ENDLESS)) as pool:
        client = Client(pool.address)
        call = asyncio.ensure_future(client.events(Request(prompt="circle", num_images=4, exact=True), LONG_S))
        await load_until(pool.workers[0].address, lambda load: load.running == 4)
        call.cancel()
        await load_until(pool.workers[0].address, lambda load: load.running == 0 and load.waiting == 0)
