"""The least a Python gateway can cost: bytes from one gRPC stream to another, nothing looked at."""

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from typing import Any

import grpc

METHOD = "/bare.Relay/Generate"
WORKER_METHOD = "/t2iserving.v1.Worker/Generate"


def serve_relay(worker_address: str, pipe: Connection) -> None:
    """A process: tells its port, relays, and on a message tells its CPU seconds since the last one, until None."""
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
        used = time.process_time()
        while await asyncio.to_thread(pipe.recv):
            pipe.send(time.process_time() - used)
            used = time.process_time()
        await server.stop(0)


async def measure_relay(worker_address: str, order: bytes, requests: int, in_flight: int) -> float:
    """Requests a CPU-second of a bare relay of one worker's stream, `in_flight` at a time."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve_relay, args=(worker_address, theirs))
    process.start()
    try:
        port = await asyncio.to_thread(ours.recv)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call: Any = channel.unary_stream(METHOD)

            async def one() -> None:
                async for _ in call(order, timeout=30):
                    pass

            await asyncio.gather(*(one() for _ in range(in_flight)))
            ours.send(True)
            await asyncio.to_thread(ours.recv)
            for _ in range(requests // in_flight):
                await asyncio.gather(*(one() for _ in range(in_flight)))
        ours.send(True)
        used_s: float = await asyncio.to_thread(ours.recv)
        return (requests // in_flight) * in_flight / used_s
    finally:
        ours.send(None)
        await asyncio.to_thread(process.join, 10)
