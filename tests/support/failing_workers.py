"""Workers at the wire that do what a test says: they step on time and draw, wait, or fail with a code. Real gRPC
servers.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from t2i_protos.v1 import level_pb2, worker_pb2, worker_pb2_grpc
from t2i_testing_kit.serving import metric, until
from t2ictl.local_pool import LocalOptions
from t2ictl.processes import ServerProcess

CAP, STEP_MS, LOAD_EVERY_S, START_LIMIT_S = 4, 1.0, 0.2, 90.0
NEXT_WITHIN_S = 60.0  # promised: a test that stands still for a moment is no silent worker
IMAGE = b"an image"
CHUNK_BYTES = 1 << 20
#: The code that a worker of this name fails a prompt with; None: it draws it.
Fails = Callable[[str, str], grpc.StatusCode | None]


class FailingWorker(worker_pb2_grpc.WorkerServicer):
    """One worker; `prompts` it was sent, `running` are not at their end. It says that a step takes `step_ms`.

    It holds `model`, and is not `ready` while it loads another one. `asked` are the requests as they came.
    """

    def __init__(self, name: str, fails: Fails, image: bytes = IMAGE, step_s: float = 0.0, model: str = "") -> None:
        self.name = name
        self.fails = fails
        self.image = image
        self.step_s = step_s
        self.step_ms = STEP_MS
        self.model = model
        self.ready = True
        self.asked: list[worker_pb2.WorkerGenerateRequest] = []
        self.prompts: list[str] = []
        self.may_draw = asyncio.Event()
        self.may_draw.set()
        self.running = 0

    async def Describe(self, request: worker_pb2.DescribeRequest, context: Any) -> worker_pb2.WorkerDescription:
        """Any model's."""
        return worker_pb2.WorkerDescription(name=self.name, group="sim", num_inference_steps=20, model=self.model)

    async def WatchLoad(
        self, request: worker_pb2.WatchLoadRequest, context: Any
    ) -> AsyncIterator[worker_pb2.WorkerLoad]:
        """Ready, whatever it fails."""
        load = worker_pb2.WorkerLoad(batch_cap=CAP, queue_cap=CAP, step_ms=[self.step_ms] * CAP)
        load.next_within_ms = round(1e3 * NEXT_WITHIN_S)
        while True:
            load.ready, load.model = self.ready, self.model
            yield load
            await asyncio.sleep(LOAD_EVERY_S)

    async def Generate(
        self, request: worker_pb2.WorkerGenerateRequest, context: Any
    ) -> AsyncIterator[worker_pb2.WorkerEvent]:
        """All steps, then the image or the failure."""
        self.running += 1
        try:
            async for event in self._draw(request, context):
                yield event
        finally:
            self.running -= 1

    async def _draw(
        self, request: worker_pb2.WorkerGenerateRequest, context: Any
    ) -> AsyncIterator[worker_pb2.WorkerEvent]:
        self.prompts.append(request.prompt)
        self.asked.append(request)
        await self.may_draw.wait()
        code, level = self.fails(self.name, request.prompt), request.level
        yield worker_pb2.WorkerEvent(started=worker_pb2.Started(served=level, reason="AsRequested"))
        for step in range(level.skipped_steps + 1, level.num_inference_steps + 1):
            progress = level_pb2.StepProgress(step=step, num_inference_steps=level.num_inference_steps)
            yield worker_pb2.WorkerEvent(progress=progress)
            await asyncio.sleep(self.step_s)
        if code is not None:
            await context.abort(code, "as the test asked for")
        size, digest = len(self.image), hashlib.sha256(self.image).digest()
        yield worker_pb2.WorkerEvent(image=level_pb2.ImageInfo(size_bytes=size, sha256=digest))
        for offset in range(0, size, CHUNK_BYTES):
            chunk = level_pb2.ImageChunk(offset=offset, data=self.image[offset : offset + CHUNK_BYTES])
            yield worker_pb2.WorkerEvent(chunk=chunk)
        yield worker_pb2.WorkerEvent(finished=worker_pb2.Finished(served=level))


@asynccontextmanager
async def gateway_of(
    options: LocalOptions, workers: list[FailingWorker], more: tuple[str, ...] = ()
) -> AsyncIterator[ServerProcess]:
    """A gateway process that has reached all of these workers, started with `more` arguments."""
    servers, addresses = [], []
    for worker in workers:
        server = grpc.aio.server()
        worker_pb2_grpc.add_WorkerServicer_to_server(worker, server)
        addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        servers.append(server)
    assert options.folder is not None
    arguments = ["--pool", str(options.pool_file), "--profile", str(options.profile), "--workers", ",".join(addresses)]
    gateway = ServerProcess("gateway", "t2i_gateway", [*arguments, "--local", *more], options.folder)
    try:
        await gateway.start()
        await gateway.wait_ready(START_LIMIT_S)
        ready = "t2i_gateway_ready_workers"
        await until("all are reached", lambda: metric(gateway, ready), lambda count: count == len(workers))
        yield gateway
    finally:
        await gateway.stop(20.0)
        for server in servers:
            await server.stop(None)
