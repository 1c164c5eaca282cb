"""A client that is gone without a word: its machine lost power, or a firewall forgot the connection."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from http2_relay import Http2Relay
from t2i_runtime.grpc_options import NO_PROXY, ORDINARY, Keepalive, server_options

WAIT = "/test.Waiting/Wait"


async def test_request_of_a_dead_client_is_cancelled() -> None:
    """The server asks it after a while of silence; without an answer the request ends, and what it holds is free."""
    began, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(_: bytes, __: Any) -> AsyncIterator[bytes]:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        yield b""

    server = grpc.aio.server(options=server_options(keepalive=Keepalive(0.1, ping_after_s=0.2, answer_within_s=3.0)))
    handlers = {"Wait": grpc.unary_stream_rpc_method_handler(wait)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Waiting", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with (
        Http2Relay(f"127.0.0.1:{port}") as relay,
        grpc.aio.insecure_channel(relay.address, options=NO_PROXY) as channel,
        asyncio.timeout(60),
    ):
        call = channel.unary_stream(WAIT)(b"")
        await began.wait()
        relay.freeze()
        await cancelled.wait()
        call.cancel()
    await server.stop(None)


def test_dead_clients_are_found_within_a_minute() -> None:
    """Of the limits that servers really have."""
    assert ORDINARY.ping_after_s + ORDINARY.answer_within_s <= 60
