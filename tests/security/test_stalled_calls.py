"""Clients that begin calls and never end them: a connection has only so many at once, the others wait in the client."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from t2i_runtime.grpc_options import MAX_STREAMS, NO_PROXY, server_options

WAIT = "/test.Waiting/Wait"


async def test_a_connection_has_a_bounded_number_of_calls() -> None:
    """The third begins when one of two ends."""
    begun: asyncio.Queue[bytes] = asyncio.Queue()

    async def wait(name: bytes, __: Any) -> AsyncIterator[bytes]:
        begun.put_nowait(name)
        yield name
        await asyncio.Event().wait()

    server = grpc.aio.server(options=server_options(max_streams=2))
    handlers = {"Wait": grpc.unary_stream_rpc_method_handler(wait)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Waiting", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=NO_PROXY) as channel, asyncio.timeout(60):
        call = channel.unary_stream(WAIT)
        first, second = call(b"first"), call(b"second")
        assert {await first.read(), await second.read()} == {b"first", b"second"}
        third = call(b"third", timeout=60)
        impatient = call(b"impatient", timeout=0.2)  # which is what it ends by
        assert await _ends_in_time(impatient) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert begun.qsize() == 2, "neither of those that wait has begun"
        first.cancel()
        assert await third.read() == b"third"
        second.cancel()
        third.cancel()
    await server.stop(None)


async def _ends_in_time(call: Any) -> grpc.StatusCode:
    code: grpc.StatusCode = await call.code()
    return code


def test_every_server_has_the_bound() -> None:
    assert ("grpc.max_concurrent_streams", MAX_STREAMS) in server_options()
