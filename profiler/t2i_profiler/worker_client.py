"""Direct calls to workers, for measuring: levels, latents kept and used, no gateway in between."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import numpy as np
import numpy.typing as npt

from t2i_policy.level import Level
from t2i_policy.measured_with import MeasuredWith
from t2i_profiler.errors import MeasurementFailed
from t2i_profiler.room import Room
from t2i_protos.v1 import worker_pb2, worker_pb2_grpc
from t2i_runtime.level_messages import level_message
from t2i_runtime.tls.transport import channel_opener

CALL_LIMIT_S = 600.0
OpenChannel = Callable[[str], grpc.aio.Channel]
IN_CLEAR = channel_opener(None, "", ())
#: What pools call the types that workers tell; simulated ones tell the pool's own words.
PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"} | {
    name: name for name in ("fp32", "fp16", "bf16", "fp8")
}


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


@dataclass(frozen=True, slots=True)
class Variant:
    """What to draw in another way than by default: a size of the pool, or an adapter at its own scale."""

    width: int = 0
    height: int = 0
    adapter: str = ""

    @property
    def phrase(self) -> str:
        """For people and keys."""
        size = f"{self.width}x{self.height}" if self.width else ""
        return "+".join(filter(None, (size, self.adapter))) or "default"


PLAIN = Variant()


class WorkerClient:
    """One worker; at most its batch of our requests at a time. `yields`: one at a time, and only while it is free."""

    def __init__(self, channel: grpc.aio.Channel, yields: bool = False) -> None:
        self._stub = worker_pb2_grpc.WorkerStub(channel)
        self.description = worker_pb2.WorkerDescription()
        self.load = worker_pb2.WorkerLoad()
        self.slots = asyncio.Semaphore(1)
        self.yields = yields
        self.given_way = 0
        self._room = Room()
        self._following: asyncio.Task[None] | None = None

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
        if self.yields:
            self._following = asyncio.create_task(self._room.follow(self._stub))
        self.slots = asyncio.Semaphore(self.num_slots)

    @property
    def num_slots(self) -> int:
        """Requests of ours at a time."""
        return 1 if self.yields else max(1, self.load.batch_cap)

    @property
    def drawn_with(self) -> MeasuredWith:
        """How its model draws where a request says nothing."""
        told = self.description
        scale = round(told.guidance_scale, 4)  # 32 bits on the wire
        return MeasuredWith(scale, PRECISIONS.get(told.dtype, ""), tuple(one.name for one in told.adapters))

    async def close(self) -> None:
        """Stop following its load."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    def order(self, prompt: str, seed: int, level: Level, variant: Variant = PLAIN) -> worker_pb2.WorkerGenerateRequest:
        """A request at this level with the model's own guidance; its own size and no adapter unless told."""
        facts = self.description
        order = worker_pb2.WorkerGenerateRequest(
            request_id="profile",
            prompt=prompt,
            seed=seed,
            width=variant.width or facts.width,
            height=variant.height or facts.height,
            guidance_scale=facts.guidance_scale,
            level=level_message(level),
        )
        if variant.adapter:
            order.drawing.adapters.add(name=variant.adapter)
        return order

    async def draw(self, order: worker_pb2.WorkerGenerateRequest) -> DrawnImage:
        """Run a request. Where others are served too, it waits for room, gives way, and begins again.

        Raises:
            MeasurementFailed: an error status, or no room for an hour.
        """
        async with self.slots:
            while self.yields:
                await self._room.until_free()
                drawn = await self._draw_unless_wanted(order)
                if drawn is not None:
                    return drawn
                self.given_way += 1
            return await self._draw_now(order)

    async def _draw_unless_wanted(self, order: worker_pb2.WorkerGenerateRequest) -> DrawnImage | None:
        """None: somebody came, and the run was cancelled."""
        drawing = asyncio.create_task(self._draw_now(order))
        wanted = asyncio.create_task(self._room.until_wanted())
        try:
            await asyncio.wait((drawing, wanted), return_when=asyncio.FIRST_COMPLETED)
            return drawing.result() if drawing.done() else None
        finally:
            for task in (drawing, wanted):
                task.cancel()
            await asyncio.gather(drawing, wanted, return_exceptions=True)

    async def _draw_now(self, order: worker_pb2.WorkerGenerateRequest) -> DrawnImage:
        data, finished = bytearray(), worker_pb2.Finished()
        try:
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


async def holding_own_model(addresses: Sequence[str], open_channel: OpenChannel = IN_CLEAR) -> list[str]:
    """Those whose workers hold the pool's own model.

    Raises:
        MeasurementFailed: a worker does not answer.
    """
    async with connect_workers(addresses, open_channel=open_channel) as workers:
        told = [worker.description.model for worker in workers]
    return [address for address, model in zip(addresses, told, strict=True) if not model]


@asynccontextmanager
async def connect_workers(
    addresses: Sequence[str], yields: bool = False, open_channel: OpenChannel = IN_CLEAR
) -> AsyncIterator[list[WorkerClient]]:
    """Clients of running workers for the time of the block. `yields`: others are served by them too."""
    channels = [open_channel(address) for address in addresses]
    clients = [WorkerClient(channel, yields) for channel in channels]
    try:
        await asyncio.gather(*(client.look() for client in clients))
        yield clients
    finally:
        for client in clients:
            await client.close()
        for channel in channels:
            await channel.close()
