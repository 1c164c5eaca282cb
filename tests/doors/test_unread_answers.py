"""What clients leave unread is drawn to its end, counts in the gateway's bounded memory, and gives way when needed."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Message

from door_in_process import post, read_all, served
from t2i_gateway.doors.sending import SLICE_BYTES, send_whole
from t2i_gateway.errors import RequestRefused
from t2i_gateway.events import PassedChunk, ToldEvent
from t2i_gateway.held_requests import STALLED_S, HeldAnswer, HeldRequests
from t2i_gateway.metrics import GatewayMetrics
from t2i_protos.v1 import gateway_pb2, level_pb2, worker_pb2

MIB = 1 << 20
IMAGE_BYTES = 6 * MIB  # 8 MiB as base64
MAX_HELD_BYTES = 12 * MIB
NEEDED_BYTES = 6 * MIB  # more than there is room for while most of the answer is unread
EXACT = level_pb2.Level(num_inference_steps=20)


class OneImage:
    """A director that draws a large image at once."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def generate(self, *_: Any) -> AsyncIterator[ToldEvent]:
        decision = gateway_pb2.Decision(wanted=EXACT, served=EXACT)
        yield gateway_pb2.GenerateEvent(accepted=gateway_pb2.Accepted(request_id="r", decision=decision))
        yield gateway_pb2.GenerateEvent(preview=level_pb2.Preview(step=1, data=b"a"))
        for _ in range(IMAGE_BYTES // MIB):
            chunk = worker_pb2.WorkerEvent(chunk=level_pb2.ImageChunk(data=bytes(MIB)))
            yield PassedChunk(chunk.SerializeToString())
        yield gateway_pb2.GenerateEvent(done=gateway_pb2.Done(served=EXACT))
        self.ended.set()


class PlayedClock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unread_answer_gives_way_once_its_client_stalls(stream: bool) -> None:
    """Its worker is free long before. A client that reads keeps its answer, whoever else needs the room."""
    director, clock = OneImage(), PlayedClock()
    async with served(director, MAX_HELD_BYTES) as door:
        door.intake._held.clock = clock
        reader, writer = await door.connect(small_buffers=True)
        writer.write(post(json.dumps({"prompt": "a", "stream": stream, "partial_images": 1}).encode()))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await director.ended.wait()
        assert door.intake.held_bytes > MAX_HELD_BYTES - NEEDED_BYTES
        with pytest.raises(RequestRefused), door.intake.held(NEEDED_BYTES):
            pass
        while door.intake.held_bytes:
            clock.now_s += STALLED_S + 1
            try:
                with door.intake.held(NEEDED_BYTES):
                    break
            except RequestRefused:
                await asyncio.sleep(0.01)  # buffers still took in a little
        assert len(await read_all(reader)) < IMAGE_BYTES
        writer.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_read_is_whole(stream: bool) -> None:
    """In slices as well, and then nothing of it is held."""
    async with served(OneImage(), MAX_HELD_BYTES) as door:
        reader, writer = await door.connect()
        body = json.dumps({"prompt": "a", "stream": stream}).encode()
        writer.write(post(body).replace(b"host: a", b"host: a\r\nconnection: close"))
        answer = await read_all(reader)
        assert answer.count(b"A") >= IMAGE_BYTES * 4 // 3
        writer.close()


async def test_small_pieces_of_an_answer_are_sent_together() -> None:
    """Each sending costs alike, however short it is; a long piece still goes in slices."""
    sent: list[bytes] = []

    async def send(message: Message) -> None:
        sent.append(message["body"])

    pieces = [b"{", b"ab", bytes(SLICE_BYTES + 1), b"c", b"}"]
    whole = b"".join(pieces)
    requests = HeldRequests(GatewayMetrics(CollectorRegistry()), MAX_HELD_BYTES)
    held = HeldAnswer(requests, lambda: None)
    held.add(len(whole))
    await send_whole(send, pieces, held)
    assert b"".join(sent) == whole
    assert [len(body) for body in sent] == [3, SLICE_BYTES, 1, 2, 0]
    assert requests.now_bytes == 0
