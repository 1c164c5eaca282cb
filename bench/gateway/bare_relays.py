"""The least that a Python gateway can cost at either door: processes that copy and decide nothing.

gRPC: bytes from a worker's stream to a client's, nothing looked at. HTTP: a JSON prompt in, the worker's image out as
base64, by Starlette and uvicorn as they come. Both take the next worker in turn.
"""

import asyncio
import base64
import itertools
import multiprocessing
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import grpc
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench.gateway.asked import GENERATIONS, order_for
from t2i_protos.v1 import worker_pb2_grpc

WORKER, METHOD = "t2iserving.v1.Worker", "Generate"
LIMIT_S, START_LIMIT_S = 30.0, 60.0


@dataclass(frozen=True, slots=True)
class BareRelay:
    """A relay that runs."""

    address: str
    pid: int


@contextmanager
def bare_relay(serve: Any, workers: Sequence[str]) -> Iterator[BareRelay]:
    """`serve_grpc` or `serve_http` in a process of its own, in front of these workers."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(serve, list(workers), theirs))
    process.start()
    try:
        if not ours.poll(START_LIMIT_S):
            raise TimeoutError("a bare relay did not start")
        assert process.pid is not None
        yield BareRelay(f"127.0.0.1:{ours.recv()}", process.pid)
    finally:
        process.terminate()
        process.join(10)


def _run(serve: Any, workers: Sequence[str], pipe: Connection) -> None:
    asyncio.run(serve(workers, pipe))


async def serve_grpc(workers: Sequence[str], pipe: Connection) -> None:
    """Tell the port, and relay until ended."""
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(address)) for address in workers]
        calls: Iterator[Any] = itertools.cycle([channel.unary_stream(f"/{WORKER}/{METHOD}") for channel in channels])

        async def relay(request: bytes, _context: Any) -> AsyncIterator[bytes]:
            async for event in next(calls)(request, timeout=LIMIT_S):
                yield event

        server = grpc.aio.server()
        handler: Any = grpc.unary_stream_rpc_method_handler(relay)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(WORKER, {METHOD: handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        pipe.send(port)
        await server.wait_for_termination()


async def serve_http(workers: Sequence[str], pipe: Connection) -> None:
    """The same for HTTP."""
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(address)) for address in workers]
        stubs = itertools.cycle([worker_pb2_grpc.WorkerStub(channel) for channel in channels])

        async def generate(request: Request) -> JSONResponse:
            order = order_for((await request.json())["prompt"])
            parts = [event.chunk.data async for event in next(stubs).Generate(order, timeout=LIMIT_S)]
            return JSONResponse({"data": [{"b64_json": base64.b64encode(b"".join(parts)).decode()}]})

        app = Starlette(routes=[Route(GENERATIONS, generate, methods=["POST"])])
        listener = socket.create_server(("127.0.0.1", 0))
        pipe.send(listener.getsockname()[1])
        await uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False)).serve([listener])
