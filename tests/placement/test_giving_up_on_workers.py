"""A request leaves a worker that it was given up on, whatever it waits for there; over a real channel."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from t2i_gateway.workers.slot import Slot
from t2i_protos.v1 import worker_pb2, worker_pb2_grpc


class SilentWorker(worker_pb2_grpc.WorkerServicer):
    """It says one thing and then nothing."""

    async def Generate(self, request: Any, context: Any) -> AsyncIterator[worker_pb2.WorkerEvent]:
        del request, context
        yield worker_pb2.WorkerEvent(started=worker_pb2.Started(num_steps=20))
        await asyncio.Event().wait()


@pytest.fixture
async def stub() -> AsyncIterator[Any]:
    server = grpc.aio.server()
    worker_pb2_grpc.add_WorkerServicer_to_server(SilentWorker(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield worker_pb2_grpc.WorkerStub(channel)
    await server.stop(None)


def slot() -> Slot:
    return Slot(0, 20, lambda: None)


async def test_whoever_waits_for_a_worker_hears_that_it_was_given_up(stub: Any) -> None:
    """Then and at the next question; the call ends with it."""
    given, call = slot(), stub.Generate(worker_pb2.WorkerGenerateRequest())
    assert (await given.read(call)).HasField("started")
    reading = asyncio.create_task(given.read(call))
    await asyncio.sleep(0)
    given.give_up()
    with pytest.raises(TimeoutError):
        await reading
    with pytest.raises(TimeoutError):
        await given.read(call)
    assert call.cancelled()


async def test_a_worker_is_given_up_before_it_was_reached(stub: Any) -> None:
    given, call = slot(), stub.Generate(worker_pb2.WorkerGenerateRequest())
    reading = asyncio.create_task(given.read(call))
    await asyncio.sleep(0)
    given.give_up()
    with pytest.raises(TimeoutError):
        await reading


async def test_a_request_that_is_cancelled_is_not_taken_for_one_to_be_moved(stub: Any) -> None:
    """Even if its worker is given up in the same instant."""
    given, call = slot(), stub.Generate(worker_pb2.WorkerGenerateRequest())
    assert (await given.read(call)).HasField("started")
    reading = asyncio.create_task(given.read(call))
    await asyncio.sleep(0)
    reading.cancel()
    given.give_up()
    with pytest.raises(asyncio.CancelledError):
        await reading
