"""A gateway holds so many bytes of requests and no more: who comes then is told to come back, and nobody else waits."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from prometheus_client import CollectorRegistry

from door_in_process import POOL
from t2i_api.parse import parse_pool
from t2i_gateway.identity import Identities
from t2i_gateway.intake import Intake
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.service import TextToImageService, add_to_server
from t2i_protos.v1 import drawing_pb2, gateway_pb2
from t2i_testing_kit.serving import Client, detail, until

KIB = 1 << 10
PNG = b"\x89PNG\r\n\x1a\n"


class StillDrawing:
    """A director that answers when it is told to."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.drawing = 0

    async def generate(self, *_: Any) -> AsyncIterator[gateway_pb2.GenerateEvent]:
        self.drawing += 1
        yield gateway_pb2.GenerateEvent(accepted=gateway_pb2.Accepted())
        await self.may_end.wait()
        yield gateway_pb2.GenerateEvent(done=gateway_pb2.Done())


def request(size_bytes: int, num_images: int = 1) -> gateway_pb2.GenerateRequest:
    images = drawing_pb2.InputImages(init_image=PNG + bytes(size_bytes))
    return gateway_pb2.GenerateRequest(prompt="a", num_images=num_images, drawing=drawing_pb2.Drawing(images=images))


@pytest.mark.asyncio
async def test_images_beyond_the_bound_are_refused_until_others_end() -> None:
    """Texts find room as long as images leave any; every end of a request frees its bytes.

    Each counts as it came, and once more on its way to a worker for each image that is drawn from it.
    """
    director, metrics = StillDrawing(), GatewayMetrics(CollectorRegistry())
    intake = Intake(director, parse_pool(POOL), metrics, max_held_bytes=200 * KIB)  # type: ignore[arg-type]
    service = TextToImageService(intake, metrics, Identities("None"))
    server = grpc.aio.server()
    add_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = Client(f"127.0.0.1:{port}")
    calls = [client.stub.Generate(request(40 * KIB)) for _ in range(2)]
    for call in calls:
        assert (await call.read()).HasField("accepted")
    error = await client.refusal(request(20 * KIB, num_images=2))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert detail(error, error_details_pb2.ErrorInfo()).reason == "ImagesFull"
    assert detail(error, error_details_pb2.RetryInfo()).retry_delay.ToMilliseconds() == 1000
    assert (await client.stub.Generate(request(10 * KIB)).read()).HasField("accepted"), "of one image it has room"
    calls[0].cancel()

    async def held_bytes() -> int:
        return intake.held_bytes

    await until("the cancelled request's bytes are free", held_bytes, lambda held: held < 110 * KIB)
    assert (await client.stub.Generate(request(40 * KIB)).read()).HasField("accepted")
    assert director.drawing == 4
    director.may_end.set()
    await client.channel.close()
    await server.stop(None)
    await until("nothing is held for calls that have ended", held_bytes, lambda held: held == 0)
