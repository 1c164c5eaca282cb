"""The least a Python gateway can cost: bytes from one gRPC stream to another, nothing looked at."""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from typing import Any

import grpc

from bench.kit.machine import process_cpu_s

METHOD = "/bare.Relay/Generate"
WORKER_METHOD = "/t2iserving.v1.Worker/Generate"


def serve_relay(worker_address: str, pipe: Connection) -> None:
    """A process: tells its port, and relays until it is ended."""
    asyncio.run(_serve(worker_address, pipe))


async def _serve(worker_address: str, pipe: Connection) -> None:
    async with grpc.aio.insecure_channel(worker_address) as channel:
        forward: Any = channel.unary_stream(WORKER_METHOD)

        async def relay(request: bytes, _context: Any) -> AsyncIterator[bytes]:
            async for event in forward(request, timeout=30):
                yield event

        server = grpc.aio.server()
        handler: Any = grpc.unary_stream_rpc_method_handler(relay)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Relay", {"Generate": handler}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        pipe.send(port)
        await server.wait_for_termination()


async def measure_relay(worker_address: str, order: bytes, requests: int, in_flight: int) -> float:
    """Requests a CPU-second of a bare relay of one worker's stream, `in_flight` at a time."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve_relay, args=(worker_address, theirs))
    process.start()
    try:
        port = await asyncio.to_thread(ours.recv)
        assert process.pid is not None
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_stream(METHOD)

            async def one() -> None:
                async for _ in call(order, timeout=30):
                    pass

            await asyncio.gather(*(one() for _ in range(in_flight)))
            before_s = process_cpu_s(process.pid)
            for _ in range(requests // in_flight):
                await asyncio.gather(*(one() for _ in range(in_flight)))
            return (requests // in_flight) * in_flight / (process_cpu_s(process.pid) - before_s)
    finally:
        process.terminate()
        await asyncio.to_thread(process.join, 10)
