"""What clients ask for, by every way: straight from a worker, through a bare relay, through the gateway's doors."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

import aiohttp
import grpc
import numpy as np

from t2i_protos.v1 import gateway_pb2, gateway_pb2_grpc, level_pb2, worker_pb2, worker_pb2_grpc
from t2i_scenes import caption, sample_scene

STEPS, LIMIT_S = 20, 30.0
GENERATIONS = "/v1/images/generations"
Ask = Callable[[str], Awaitable[None]]  # one image of a prompt; whoever asks has it whole when it returns
ASK_ERRORS = (grpc.aio.AioRpcError, aiohttp.ClientError, TimeoutError)


class Wire(StrEnum):
    """What is spoken at an address."""

    WORKER = "worker"
    GATEWAY = "gateway"
    HTTP = "http"


@dataclass(frozen=True, slots=True)
class AskedWay:
    """One way to an image. `pid` is of the process between; 0 = there is none."""

    name: str
    wire: Wire
    address: str
    pid: int = 0


def prompts(count: int, seed: int) -> list[str]:
    """Captions of which half repeat an earlier one."""
    rng = np.random.default_rng(seed)
    said: list[str] = []
    while len(said) < count:
        repeat = said and rng.random() < 0.5
        said.append(said[int(rng.integers(len(said)))] if repeat else caption(sample_scene(rng), rng))
    return said


def order_for(prompt: str) -> worker_pb2.WorkerGenerateRequest:
    """An exact image, as the gateway orders it."""
    level = level_pb2.Level(num_inference_steps=STEPS)
    return worker_pb2.WorkerGenerateRequest(prompt=prompt, seed=1, width=48, height=48, guidance_scale=2, level=level)


@asynccontextmanager
async def asking(way: AskedWay) -> AsyncIterator[Ask]:
    """How a client asks at this address."""
    if way.wire is Wire.HTTP:
        connector = aiohttp.TCPConnector(limit=0)
        limit = aiohttp.ClientTimeout(LIMIT_S)
        async with aiohttp.ClientSession(f"http://{way.address}", connector=connector, timeout=limit) as session:
            yield lambda prompt: _by_http(session, prompt)
        return
    async with grpc.aio.insecure_channel(way.address) as channel:
        if way.wire is Wire.WORKER:
            worker = worker_pb2_grpc.WorkerStub(channel)
            yield lambda prompt: _from_worker(worker, prompt)
        else:
            gateway = gateway_pb2_grpc.TextToImageStub(channel)
            yield lambda prompt: _by_grpc(gateway, prompt)


async def _from_worker(stub: "worker_pb2_grpc.WorkerAsyncStub", prompt: str) -> None:
    last = None
    async for event in stub.Generate(order_for(prompt), timeout=LIMIT_S):
        last = event
    assert last is not None
    assert last.HasField("finished")


async def _by_grpc(stub: "gateway_pb2_grpc.TextToImageAsyncStub", prompt: str) -> None:
    last = None
    async for event in stub.Generate(gateway_pb2.GenerateRequest(prompt=prompt, seed=1, exact=True), timeout=LIMIT_S):
        last = event
    assert last is not None
    assert last.HasField("done")


async def _by_http(session: aiohttp.ClientSession, prompt: str) -> None:
    async with session.post(GENERATIONS, json={"prompt": prompt, "seed": 1, "exact": True}) as answer:
        answer.raise_for_status()
        assert b'"b64_json"' in await answer.read()
