"""What tests of running servers share: a pool, a client, error details, waiting on a load, a profile."""

import asyncio
import io
import re
import urllib.request
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from t2i_policy.level import Level
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.profile_document import render_profile
from t2i_protos.v1 import gateway_pb2, gateway_pb2_grpc, worker_pb2, worker_pb2_grpc
from t2ictl.local_pool import LocalOptions
from t2ictl.processes import ServerProcess

STEPS = 20
WITHIN_S = 60.0  # for whatever must happen; nothing waits for it where all is well
PATIENT_S = 150.0  # for what our processes try again after pauses that grow to a minute
M = TypeVar("M", bound=Message)
T = TypeVar("T")
WritePool = Callable[..., LocalOptions]
POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {{name: test}}
spec:
  model: {{source: "builtin://scenes", numInferenceSteps: 20, guidanceScalePercent: 200, width: 48, height: 48,
          precision: fp32, embedder: "{embedder}", sizes: {sizes}}}
  levels: [{{skippedSteps: 0}}, {{skippedSteps: 10}}, {{numInferenceSteps: 10}}]
  workerGroups: [{{name: sim, workers: {workers}, engine: {engine}}}]
  slo: {{latencyMilliseconds: {slo_ms}, minQualityPercent: 80}}
  gateway: {{replicas: 1, maxQueuedRequests: {max_queued}}}
"""
TWO_SIZES = "[{width: 72, height: 48}]"  # beside the default


def make_profile(step_s: tuple[float, ...]) -> LevelProfile:
    """Skipping is harmless from similarity 0.8 on, for repeated prompts too, and out of the question below; the short
    schedule costs 5 %.
    """
    losses = (
        BandLoss(Level(10, STEPS), -1.0, 0.8, 0.5, 0.0, 100, 0.0),
        BandLoss(Level(10, STEPS), 0.8, 1.01, 0.001, 0.0, 100, 0.0),
        BandLoss(Level(0, 10), -1.0, 1.01, 0.05, 0.0, 100),
    )
    return LevelProfile("test", "test", STEPS, step_s, 0.0, losses)


@dataclass(frozen=True, slots=True)
class PoolFiles:
    """A pool whose steps take `step_s` seconds in batches of up to `cap`, where its workers are simulated."""

    workers: int = 2
    engine: str = "simulated"
    step_s: float = 0.001
    cap: int = 4
    slo_ms: int = 5000
    max_queued: int = 64
    embedder: str = ""
    sizes: str = "[]"

    def write(self, folder: Path) -> LocalOptions:
        """Its document and its profile."""
        (folder / "pool.yaml").write_text(POOL.format(**asdict(self)))
        (folder / "profile.json").write_text(render_profile(make_profile((self.step_s,) * self.cap)))
        return LocalOptions(
            folder / "pool.yaml", "127.0.0.1:0", folder, folder / "profile.json", models_dir=folder, threads=1
        )


class Client:
    """A gateway's stub with the calls that tests make."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)
        self.stub = gateway_pb2_grpc.TextToImageStub(self.channel)

    async def events(
        self, request: gateway_pb2.GenerateRequest, limit_s: float = WITHIN_S, tenant: str = ""
    ) -> list[gateway_pb2.GenerateEvent]:
        """All events of one request."""
        metadata = (("x-t2i-tenant", tenant),) if tenant else ()
        return [event async for event in self.stub.Generate(request, timeout=limit_s, metadata=metadata)]

    async def done(
        self, request: gateway_pb2.GenerateRequest, limit_s: float = WITHIN_S, tenant: str = ""
    ) -> gateway_pb2.Done:
        """The last event of one request."""
        return (await self.events(request, limit_s, tenant))[-1].done

    async def refusal(
        self, request: gateway_pb2.GenerateRequest, limit_s: float = WITHIN_S, tenant: str = ""
    ) -> grpc.aio.AioRpcError:
        """The error that a request must end in."""
        try:
            await self.events(request, limit_s, tenant)
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError("the request was served")


def image_of(events: Iterable[gateway_pb2.GenerateEvent]) -> np.ndarray:
    """The pixels of one request's image, uint8 [H,W,3]."""
    data = b"".join(event.chunk.data for event in events if event.HasField("chunk"))
    return np.asarray(Image.open(io.BytesIO(data)))


def violated_fields(error: grpc.aio.AioRpcError) -> list[str]:
    """The fields named by google.rpc.BadRequest."""
    return [violation.field for violation in detail(error, error_details_pb2.BadRequest()).field_violations]


def detail(error: grpc.aio.AioRpcError, kind: M) -> M:
    """The google.rpc detail of this kind, empty if there is none."""
    status = rpc_status.from_call(error)
    for packed in status.details if status is not None else ():
        if packed.Is(kind.DESCRIPTOR):
            packed.Unpack(kind)
    return kind


async def load_until(address: str, reached: Callable[[worker_pb2.WorkerLoad], bool]) -> worker_pb2.WorkerLoad:
    """Watch a worker's load until the condition holds."""
    async with grpc.aio.insecure_channel(address) as channel:
        async for load in worker_pb2_grpc.WorkerStub(channel).WatchLoad(
            worker_pb2.WatchLoadRequest(), timeout=WITHIN_S
        ):
            if reached(load):
                return load
    raise AssertionError("the worker's load stream ended early")


def latent_files(folder: Path) -> list[Path]:
    """Every stored latent of a pool's folder."""
    return sorted((folder / "latents").rglob("*.latent"))


async def metric(process: ServerProcess, name: str) -> float:
    """One of a process's metrics, by name and labels as they are written; 0 if it is not there."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", await asyncio.to_thread(metrics_text, process), re.MULTILINE)
    return float(found.group(1)) if found else 0.0


def metrics_text(process: ServerProcess) -> str:
    """All of a process's metrics."""
    text: bytes = urllib.request.urlopen(f"http://{process.metrics_address}/metrics", timeout=WITHIN_S).read()
    return text.decode()


async def until(what: str, look: Callable[[], Awaitable[T]], reached: Callable[[T], bool]) -> T:
    """Look until the condition holds."""
    seen: T | None = None
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENT_S):
            while True:
                seen = await look()
                if reached(seen):
                    return seen
                await asyncio.sleep(0.05)
    raise AssertionError(f"never: {what}; last seen {seen!r}")


async def read_to_end(call: Any) -> list[gateway_pb2.GenerateEvent]:
    """The rest of a stream whose first event was taken with `read`."""
    events = []
    while isinstance(event := await call.read(), gateway_pb2.GenerateEvent):
        events.append(event)
    return events
