"""Direct calls to workers, for measuring: levels, latents kept and used, no gateway in between."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import numpy as np
import numpy.typing as npt

from t2i_policy.level import Level
from t2i_profiler.errors import MeasurementFailed
from t2i_protos.v1 import worker_pb2, worker_pb2_grpc
from t2i_runtime.grpc_options import NO_PROXY
from t2i_runtime.level_messages import level_message

CALL_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """An image and the worker's last word on it."""

    data: bytes
    finished: worker_pb2.Finished


@dataclass(frozen=True, slots=True)
class Stored:
    """The entry of a run whose final latent was kept."""

    scope: str
    entry_id: str


class WorkerClient:
    """One worker; at most its batch of our requests at a time."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = worker_pb2_grpc.WorkerStub(channel)
        self.description = worker_pb2.WorkerDescription()
        self.load = worker_pb2.WorkerLoad()
        self.slots = asyncio.Semaphore(1)

    async def look(self) -> None:
        """Read description and load.

        Raises:
            MeasurementFailed: it does not answer.
        """
        try:
            self.description = await self._stub.Describe(worker_pb2.DescribeRequest(), timeout=10)
            async for load in self._stub.WatchLoad(worker_pb2.WatchLoadRequest(), timeout=10):
                self.load = load
                break
        except grpc.aio.AioRpcError as error:
            raise MeasurementFailed(error.code().name, f"worker: {error.details()}") from error
        self.slots = asyncio.Semaphore(max(1, self.load.batch_cap))

    def order(self, prompt: str, seed: int, level: Level) -> worker_pb2.WorkerGenerateRequest:
        """A request at this level with the model's own size and guidance."""
        facts = self.description
        return worker_pb2.WorkerGenerateRequest(
            request_id="profile",
            prompt=prompt,
            seed=seed,
            width=facts.width,
            height=facts.height,
            guidance_scale=facts.guidance_scale,
            level=level_message(level),
        )

    async def draw(self, order: worker_pb2.WorkerGenerateRequest) -> DrawnImage:
        """Run a request.

        Raises:
            MeasurementFailed: an error status.
        """
        data, finished = bytearray(), worker_pb2.Finished()
        try:
            async with self.slots:
                async for event in self._stub.Generate(order, timeout=CALL_LIMIT_S):
                    if event.HasField("chunk"):
                        data += event.chunk.data
                    elif event.HasField("finished"):
                        finished = event.finished
        except grpc.aio.AioRpcError as error:
            raise MeasurementFailed(error.code().name, f"worker: {error.details()}") from error
        return DrawnImage(bytes(data), finished)


def keep_as(
    order: worker_pb2.WorkerGenerateRequest, entry: Stored, embedding: npt.NDArray[np.float32]
) -> worker_pb2.WorkerGenerateRequest:
    """The order, with its final latent kept."""
    order.sink.scope, order.sink.entry_id = entry.scope, entry.entry_id
    order.sink.embedding = embedding.astype("<f4").tobytes()
    return order


def start_from(order: worker_pb2.WorkerGenerateRequest, stored: Stored) -> worker_pb2.WorkerGenerateRequest:
    """The order, starting from the final latent of an earlier prompt's run."""
    order.source.scope, order.source.entry_id = stored.scope, stored.entry_id
    return order


@asynccontextmanager
async def connect_workers(addresses: Sequence[str]) -> AsyncIterator[list[WorkerClient]]:
    """Clients of running workers for the time of the block."""
    channels = [grpc.aio.insecure_channel(address, options=NO_PROXY) for address in addresses]
    clients = [WorkerClient(channel) for channel in channels]
    try:
        await asyncio.gather(*(client.look() for client in clients))
        yield clients
    finally:
        for channel in channels:
            await channel.close()
