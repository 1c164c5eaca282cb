"""A real worker process whose device breaks: health says so, it ends with a code of its own, or it comes back."""

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from t2i_protos.v1 import level_pb2, worker_pb2, worker_pb2_grpc
from t2i_testing_kit.serving import PATIENT_S, WITHIN_S, WritePool, load_until
from t2ictl.local_pool import LocalOptions

pytestmark = [pytest.mark.process]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
#: A worker whose forwards fail as the text of a file says, while that file is there.
BREAKABLE = """
import pathlib, sys
import torch
from t2i_worker.pipelines import Denoiser
fault, predict = pathlib.Path(sys.argv.pop(1)), Denoiser.forward
def breakable(self, *args):
    if fault.exists():
        text = fault.read_text()
        raise SystemExit if text == "exit" else torch.AcceleratorError(text)
    return predict(self, *args)
Denoiser.forward = breakable
from t2i_worker.__main__ import main
sys.exit(main())
"""


class Worker:
    """The process, its stubs, and the file that breaks it."""

    def __init__(self, folder: Path, options: LocalOptions) -> None:
        self.fault = folder / "fault"
        self.log = folder / "worker.log"
        self._announced = folder / "worker.json"
        arguments = [
            str(self.fault),
            "--pool",
            str(options.pool_file),
            "--group",
            "sim",
            "--name",
            "w",
            "--threads",
            "1",
        ]
        arguments += ["--max-batch", "1", "--announce", str(self._announced)]
        with self.log.open("wb") as out:
            self.process = subprocess.Popen([sys.executable, "-c", BREAKABLE, *arguments], stdout=out, stderr=out)

    async def start(self) -> None:
        async with asyncio.timeout(180):
            while not self._announced.exists():
                assert self.process.poll() is None, self.log.read_text()
                await asyncio.sleep(0.05)
        told = json.loads(self._announced.read_text())
        self.address, self.metrics = told["address"], told["metrics_address"]
        self.channel = grpc.aio.insecure_channel(self.address)

    def generate(self, number: int) -> grpc.aio.UnaryStreamCall:
        request = worker_pb2.WorkerGenerateRequest(
            request_id=str(number),
            prompt="circle",
            width=48,
            height=48,
            guidance_scale=2.0,
            level=level_pb2.Level(num_inference_steps=20),
        )
        return worker_pb2_grpc.WorkerStub(self.channel).Generate(request, timeout=WITHIN_S)

    async def code(self, number: int) -> grpc.StatusCode:
        call = self.generate(number)
        try:
            async for _ in call:
                pass
        except grpc.aio.AioRpcError:
            pass
        return await call.code()

    async def health(self, service: str) -> AsyncIterator[int]:
        stub = health_pb2_grpc.HealthStub(self.channel)
        async for one in stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=PATIENT_S):
            yield one.status

    def probe(self, path: str) -> int:
        try:
            return int(urllib.request.urlopen(f"http://{self.metrics}{path}", timeout=WITHIN_S).status)
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture
async def worker(write_pool: WritePool, tmp_path: Path) -> AsyncIterator[Worker]:
    made = Worker(tmp_path, write_pool(workers=1, engine="diffusion"))
    try:
        await made.start()
        yield made
        await made.channel.close()
    finally:
        made.process.kill()
        made.process.wait(WITHIN_S)


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        ("CUDA error: device-side assert triggered", 3, "DeviceLost"),
        ("exit", 4, "LoopEnded"),
    ],
)
async def test_worker_that_lost_its_device_or_thread_ends(fault: str, code: int, sentence: str, worker: Worker) -> None:
    """The request may move, health says NOT_SERVING, and the process ends with a code of its own, to be restarted."""
    watched = [worker.health(""), worker.health("t2iserving.v1.Worker")]
    assert [await anext(one) for one in watched] == [SERVING, SERVING]
    assert (worker.probe("/livez"), worker.probe("/readyz")) == (200, 200)
    worker.fault.write_text(fault)
    assert await worker.code(1) is grpc.StatusCode.UNAVAILABLE
    assert [await anext(one) for one in watched] == [NOT_SERVING, NOT_SERVING]
    assert await asyncio.to_thread(worker.process.wait, WITHIN_S) == code
    assert f"to be started anew: the engine is lost to this process ({sentence})" in worker.log.read_text()


async def test_worker_that_fails_every_request_says_so_and_comes_back(worker: Worker) -> None:
    """Three failures in a row: health, load and probes say it; once its own test succeeds, all is as before."""
    watched = worker.health("")
    assert await anext(watched) == SERVING
    worker.fault.write_text("CUDA error: invalid configuration argument")
    assert [await worker.code(number) for number in range(3)] == [grpc.StatusCode.INTERNAL] * 3
    assert await anext(watched) == NOT_SERVING
    await load_until(worker.address, lambda load: not load.ready)
    assert await worker.code(3) is grpc.StatusCode.UNAVAILABLE
    assert (worker.probe("/livez"), worker.probe("/readyz")) == (200, 503)
    worker.fault.unlink()
    assert await anext(watched) == SERVING
    assert await worker.code(4) is grpc.StatusCode.OK
