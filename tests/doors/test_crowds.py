"""Two hundred clients that read nothing, and two hundred that vanish, at one gateway process.

Its memory stays within what docs/openai.md says, its places are free again, and others are served all the while.
"""

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import openai
import pytest
import pytest_asyncio

from failing_workers import FailingWorker, gateway_of
from t2i_testing_kit.serving import WritePool, metric, until
from t2ictl.processes import ServerProcess

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(600)]
CROWD = 200
IMAGE_BYTES = 4 << 20  # 5.3 MiB as base64, more than a GiB for all
MEMORY_BYTES = 256 << 20  # what unread answers may hold
SLACK_BYTES = 450 << 20  # images under way, buffers of connections, what the allocator keeps
SLOW = "slowly"  # a prompt that takes a while
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class LargeImages(FailingWorker):
    """Draws large images."""

    def __init__(self) -> None:
        super().__init__("large", lambda *_: None, bytes(IMAGE_BYTES))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> LargeImages:
    return LargeImages()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(write_pool: WritePool, worker: LargeImages) -> AsyncIterator[ServerProcess]:
    options = write_pool(slo_ms=60_000)
    async with gateway_of(options, [worker], ("--listen-http", "127.0.0.1:0")) as started:
        async with client_of(started) as client:
            await draw(client)  # once all is loaded
        yield started


def client_of(gateway: ServerProcess) -> openai.AsyncOpenAI:
    """One that comes back when it is told to."""
    base = f"http://{gateway.http_address}/v1"
    return openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=50, timeout=120)


async def draw(client: openai.AsyncOpenAI) -> None:
    answer = await client.images.generate(prompt="a circle")
    assert answer.data is not None
    assert len(answer.data[0].b64_json or "") > IMAGE_BYTES


def memory_bytes(gateway: ServerProcess, name: str) -> int:
    """VmRSS now, or VmHWM at most."""
    assert gateway.process is not None
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith(name))) << 10


async def open_files(gateway: ServerProcess) -> int:
    assert gateway.process is not None
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


async def in_flight(gateway: ServerProcess) -> float:
    return await metric(gateway, "t2i_gateway_in_flight_requests")


@asynccontextmanager
async def asking(gateway: ServerProcess, stream: bool, prompt: str = "a circle") -> AsyncIterator[Connection]:
    """A client that has sent its request and takes in little ahead of what it reads."""
    host, _, port = gateway.http_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    body = json.dumps({"prompt": prompt, "stream": stream, "partial_images": 1}).encode()
    head = f"POST /v1/images/generations HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n"
    writer.write(f"{head}content-type: application/json\r\n\r\n".encode() + body)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def read_nothing(
    gateway: ServerProcess, turns: asyncio.Semaphore, answered: asyncio.Semaphore, leave: asyncio.Event, stream: bool
) -> None:
    """Look at no more than the status; whoever is told to come back does."""
    while True:
        async with AsyncExitStack() as stack:
            async with turns:
                reader, _ = await stack.enter_async_context(asking(gateway, stream))
                status = await reader.readline()
            if b" 200 " in status:
                answered.release()
                await leave.wait()
                return
            assert b" 429 " in status
        await asyncio.sleep(0.5)


async def test_clients_that_read_nothing_hold_no_worker_and_little_memory(
    gateway: ServerProcess, worker: LargeImages
) -> None:
    """All are drawn for, others as well, and memory stays within its bound."""
    files, before = await open_files(gateway), memory_bytes(gateway, "VmRSS")
    answered, leave, turns = asyncio.Semaphore(0), asyncio.Event(), asyncio.Semaphore(8)
    async with client_of(gateway) as client, asyncio.TaskGroup() as group:
        for number in range(CROWD):
            group.create_task(read_nothing(gateway, turns, answered, leave, number % 2 == 0))
        for _ in range(10):
            await draw(client)
        for _ in range(CROWD):
            await answered.acquire()
        await until("no place is held for who does not read", lambda: in_flight(gateway), lambda held: held == 0)
        await draw(client)
        leave.set()
    assert memory_bytes(gateway, "VmHWM") < before + MEMORY_BYTES + SLACK_BYTES
    await until("all connections are closed", lambda: open_files(gateway), lambda count: count <= files)


async def vanish(gateway: ServerProcess, number: int) -> None:
    """At once, before the answer, or within it."""
    async with asking(gateway, stream=number % 2 == 0, prompt=SLOW) as (reader, _):
        match number % 3:
            case 0:
                return
            case 1:
                await asyncio.sleep(random.random())
            case 2:
                await reader.readline()


async def test_clients_that_vanish_leave_nothing_behind(gateway: ServerProcess, worker: LargeImages) -> None:
    """No place at a worker, no connection, no task; others are served meanwhile."""
    files, tasks = await open_files(gateway), await metric(gateway, "t2i_gateway_tasks")
    worker.step_s = 0.02
    async with client_of(gateway) as client, asyncio.TaskGroup() as group:
        for number in range(CROWD):
            group.create_task(vanish(gateway, number))
        await draw(client)
    worker.step_s = 0.0
    await until("no request is under way", lambda: in_flight(gateway), lambda held: held == 0)
    await until("all connections are closed", lambda: open_files(gateway), lambda count: count <= files)
    await until("no task is left", lambda: metric(gateway, "t2i_gateway_tasks"), lambda count: count <= tasks)
    await until("the worker has heard of all", lambda: asyncio.sleep(0, worker.running), lambda count: not count)
    async with client_of(gateway) as client:
        await draw(client)
