"""Clients that send or read too slowly hold nothing for long: a server in this process, with short limits."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from door_in_process import WITHIN_S, head, read_all, served
from t2i_gateway.doors import app as app_module
from t2i_gateway.doors import connections, images, reading
from t2i_protos.v1 import gateway_pb2, level_pb2

LIMIT_S = 0.2
PREVIEW = level_pb2.Preview(step=1, format=level_pb2.OUTPUT_FORMAT_WEBP, data=bytes(8 << 20))  # fills all buffers


class EndlessDrawing:
    """A director whose requests show previews without end."""

    def __init__(self) -> None:
        self.shown = 0
        self.closed = asyncio.Event()

    async def generate(self, *_: Any) -> AsyncIterator[gateway_pb2.GenerateEvent]:
        yield gateway_pb2.GenerateEvent(accepted=gateway_pb2.Accepted(request_id="r"))
        try:
            while True:
                self.shown += 1
                await asyncio.sleep(0)
                yield gateway_pb2.GenerateEvent(preview=PREVIEW)
        finally:
            self.closed.set()


@pytest.fixture(autouse=True)
def long_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test makes the one short that it is about: of two short ones either could come first."""
    monkeypatch.setattr(connections, "HEADERS_LIMIT_S", 2 * WITHIN_S)
    monkeypatch.setattr(connections, "UNREAD_LIMIT_S", 2 * WITHIN_S)
    monkeypatch.setattr(reading, "BODY_LIMIT_S", 2 * WITHIN_S)


@pytest.mark.parametrize("sent", [b"", b"POST /v1/ima"], ids=["nothing", "a part of the headers"])
async def test_headers_must_come_in_time(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a request is closed."""
    monkeypatch.setattr(connections, "HEADERS_LIMIT_S", LIMIT_S)
    async with served(EndlessDrawing()) as door:
        reader, writer = await door.connect()
        writer.write(sent)
        assert await read_all(reader) == b""
        writer.close()


async def test_a_body_must_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told so, and the connection is closed."""
    monkeypatch.setattr(reading, "BODY_LIMIT_S", LIMIT_S)
    async with served(EndlessDrawing()) as door:
        reader, writer = await door.connect()
        writer.write(head(1000) + b'{"prom')
        answer = await read_all(reader)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "body_timeout"
        writer.close()


async def test_an_unread_stream_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the limit its place is free."""
    monkeypatch.setattr(connections, "UNREAD_LIMIT_S", LIMIT_S)
    director = EndlessDrawing()
    async with served(director) as door:
        reader, writer = await door.connect()
        body = b'{"prompt": "a", "stream": true, "partial_images": 3}'
        writer.write(head(len(body)) + body)
        assert await reader.read(100)
        cast(Any, writer.transport).pause_reading()
        async with asyncio.timeout(WITHIN_S):
            await director.closed.wait()
        writer.close()


async def test_a_stream_has_an_end_however_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds a place at a worker, which nobody may keep by reading a little now and then."""
    monkeypatch.setattr(images, "SLOS_WITHOUT_TIMEOUT", 0)
    monkeypatch.setattr(images, "STREAM_GRACE_S", LIMIT_S)
    director = EndlessDrawing()
    async with served(director) as door:
        reader, writer = await door.connect()
        body = b'{"prompt": "a", "stream": true, "partial_images": 3}'
        writer.write(head(len(body)) + body)
        assert await reader.read(100)
        async with asyncio.timeout(WITHIN_S):
            await director.closed.wait()
        writer.transport.abort()


async def test_an_old_connection_is_closed_after_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a client whose certificate was withdrawn does not stay for ever."""
    monkeypatch.setattr(app_module, "MAX_CONNECTION_AGE_S", -1)
    async with served(EndlessDrawing()) as door:
        reader, writer = await door.connect()
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"connection: close" in await read_all(reader)
        writer.close()
