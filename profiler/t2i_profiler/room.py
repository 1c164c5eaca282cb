"""Room on a worker that serves others: measuring draws only while nobody else does, and gives way to whoever comes.

A worker has no priorities: what comes joins its batch at the next step. So a measuring image is begun alone, and only
on a worker without any other request. It is cancelled as soon as the worker reports another one, which frees its place
within a step. A live request thus shares a batch with it for one report of load (50 ms after the change at most) and
one step.
"""

import asyncio
from typing import Any

import grpc

from t2i_profiler.errors import MeasurementFailed
from t2i_protos.v1 import worker_pb2, worker_pb2_grpc

ROOM_LIMIT_S = 3600.0
SILENCE_LIMIT_S = 30.0


class Room:
    """What a worker last reported. Follow it with `follow` for as long as it is asked."""

    def __init__(self) -> None:
        self._load = worker_pb2.WorkerLoad()
        self._changed = asyncio.Condition()
        self._failed: MeasurementFailed | None = None

    async def follow(self, stub: worker_pb2_grpc.WorkerStub) -> None:
        """Take in the worker's reports until cancelled, or until it falls silent: then whoever waits is told."""
        try:
            call: Any = stub.WatchLoad(worker_pb2.WatchLoadRequest())
            reports = aiter(call)
            while True:
                async with asyncio.timeout(SILENCE_LIMIT_S):
                    load = await anext(reports)
                async with self._changed:
                    self._load = load
                    self._changed.notify_all()
        except (grpc.aio.AioRpcError, TimeoutError, StopAsyncIteration) as error:
            async with self._changed:
                self._failed = MeasurementFailed("UNAVAILABLE", f"worker: it reports no load any more ({error!r:.200})")
                self._changed.notify_all()

    async def until_free(self) -> None:
        """Nobody draws there.

        Raises:
            MeasurementFailed: not within an hour, or the worker is gone.
        """
        try:
            async with asyncio.timeout(ROOM_LIMIT_S):
                await self._until(0)
        except TimeoutError as error:
            raise MeasurementFailed(
                "RESOURCE_EXHAUSTED",
                "no room on a worker for an hour: run the same command when there is less load, it goes on from here",
            ) from error

    async def until_wanted(self) -> None:
        """Somebody draws there beside us, or waits for it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._failed is not None or others(self._load) > 1)

    async def _until(self, most: int) -> None:
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._failed is not None or (self._load.ready and others(self._load) <= most)
            )
            if self._failed is not None:
                raise self._failed


def others(load: worker_pb2.WorkerLoad) -> int:
    """Requests that draw or wait at this worker, or in a gateway for some worker; one of ours is counted too."""
    return int(load.running + load.waiting + sum(one.requests for one in load.gateway_queues))
