"""What a connection may say and how many there are: the HTTP door in this process, asked byte by byte."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from door_in_process import WITHIN_S, ServedDoor, read_all, served
from t2i_gateway.doors import connections, images, reading
from t2i_protos.v1 import gateway_pb2

BODY = b'{"prompt": "a"}'
TARGET = b"POST /v1/images/generations HTTP/1."
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
HIDDEN = b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"


@pytest.fixture(autouse=True)
def _time_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client and server share a process here: if it stands still, nobody is cut off for that."""
    monkeypatch.setattr(connections, "BROKEN_LIMIT_S", 2 * WITHIN_S)


class NothingDrawn:
    """A director that must not be asked."""

    asked = 0

    async def generate(self, *_: Any) -> AsyncIterator[gateway_pb2.GenerateEvent]:
        self.asked += 1
        yield gateway_pb2.GenerateEvent(done=gateway_pb2.Done())


FRAMINGS = {
    "a length and chunks": (b"1", LENGTH + CHUNKED, CHUNKS),
    "chunks and a length": (b"1", CHUNKED + LENGTH, CHUNKS),
    "chunks in HTTP/1.0": (b"0", CHUNKED, CHUNKS),
    "two lengths": (b"1", LENGTH + b"content-length: 3\r\n", BODY),
    "chunks of another coding": (b"1", b"transfer-encoding: gzip, chunked\r\n", CHUNKS),
}


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_a_length_that_can_be_read_in_two_ways_is_refused(framing: str) -> None:
    """Else a proxy and the gateway could see different requests in the same bytes. What follows is not read."""
    version, lengths, body = FRAMINGS[framing]
    director = NothingDrawn()
    async with served(director) as door:
        headers = b"\r\nhost: a\r\ncontent-type: application/json\r\n" + lengths + b"\r\n"
        answer = await door.answer_to(TARGET + version + headers + body + HIDDEN)
    assert answer.partition(b"\r\n")[0].split()[1] in (b"400", b"501")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer.lower()
    assert not director.asked


async def asked_healthz(door: ServedDoor, close: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await door.connect()
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: a\r\n" + close + b"\r\n")
    return reader, writer


async def test_connections_beyond_the_bound_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as they ask; who has a connection keeps it, and a place that is left is free for the next."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 4)
    async with served(NothingDrawn()) as door:
        kept = [await asked_healthz(door) for _ in range(4)]
        for reader, _ in kept:
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        reader, writer = await asked_healthz(door)
        answer = await read_all(reader)
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1" in answer
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_many_connections"
        writer.close()
        for reader, writer in kept[1:]:
            writer.close()
            await read_all(reader)
        kept[0][1].write(HIDDEN)
        assert (await read_all(kept[0][0])).count(b"200 OK") == 1
        reader, writer = await asked_healthz(door, b"connection: close\r\n")
        assert (await read_all(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_connections_far_beyond_the_bound_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even their request is waited for."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 4)
    async with served(NothingDrawn()) as door:
        waiting = [await door.connect() for _ in range(5)]
        for _, opened in waiting:
            opened.write(b"POST")
        reader, writer = await door.connect()
        assert await read_all(reader) == b""
        writer.close()
        for _, opened in waiting:
            opened.close()


async def test_the_bound_leaves_files_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a process may open few files."""
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (1000, 1000))
    assert connections.most_connections() == 500
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (connections.resource.RLIM_INFINITY,) * 2)
    assert connections.most_connections() == connections.MAX_CONNECTIONS


BROKEN = {
    "not HTTP": (b"hello there\r\n\r\n", 400),
    "a broken header": (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
    "headers without end": (b"GET / HTTP/1.1\r\na: " + b"a" * 200_000, 431),
    "an unknown coding": (TARGET + b"1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", 501),
}


@pytest.mark.parametrize("broken", BROKEN)
async def test_what_is_no_http_is_told_as_all_errors_are(broken: str) -> None:
    """In OpenAI's shape, with an id; clients and logs need one way to read errors."""
    sent, status = BROKEN[broken]
    async with served(NothingDrawn()) as door:
        head, _, body = (await door.answer_to(sent)).partition(b"\r\n\r\n")
    told = json.loads(body)["error"]
    assert int(head.split()[1]) == status
    assert (told["code"], told["param"], bool(told["message"])) == ("invalid_http", None, True)
    assert b"x-request-id: " in head
    assert b"connection: close" in head


async def test_garbage_within_a_request_ends_it_with_one_answer() -> None:
    """The request that runs is given up; nobody gets two answers."""
    async with served(NothingDrawn()) as door:
        start = TARGET + b"1\r\nhost: a\r\ncontent-type: application/json\r\n" + CHUNKED + b"\r\nno number\r\n"
        answer = await door.answer_to(start)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_http"


@pytest.mark.parametrize("expects", [b"", b"expect: 100-continue\r\n"], ids=["none comes", "it waits to be asked"])
async def test_a_length_that_is_too_long_is_refused_before_its_body(
    expects: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a body that will not be taken."""
    monkeypatch.setattr(reading, "BODY_LIMIT_S", 2 * WITHIN_S)
    async with served(NothingDrawn()) as door:
        reader, writer = await door.connect()
        length = b"content-length: 99999999999\r\n"
        writer.write(TARGET + b"1\r\nhost: a\r\ncontent-type: application/json\r\n" + expects + length + b"\r\n")
        async with asyncio.timeout(WITHIN_S):
            head = await reader.readuntil(b"\r\n\r\n")
            told = await reader.readuntil(b"}}")
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in head
        assert json.loads(told)["error"]["code"] == "body_too_large"
        writer.close()


async def test_who_sends_all_before_it_listens_finds_the_answer() -> None:
    """Closed at once, the connection would be reset, and the answer in it lost."""
    long = images.MAX_JSON_BYTES + (8 << 20)
    async with served(NothingDrawn()) as door:
        reader, writer = await door.connect()
        length = b"content-length: %d\r\n\r\n" % long
        writer.write(TARGET + b"1\r\nhost: a\r\ncontent-type: application/json\r\n" + length)
        for _ in range(long >> 16):
            writer.write(b" " * 65_536)
            async with asyncio.timeout(WITHIN_S):
                await writer.drain()
        writer.write(b" " * (long % 65_536))
        assert (await read_all(reader)).startswith(b"HTTP/1.1 413 ")
        writer.close()
