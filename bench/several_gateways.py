"""Several gateways on one overloaded pool: `make bench-several-gateways` -> build/bench/several-gateways.json.

Gateway processes and two workers with the simulated engine on this machine; clients draw a gateway at random, arrivals
are Poisson at `load` of what full batches make at the cheapest level. A client waits as long as the SLO. Each request
ends in one of four ways: an image in time, refused at once (within `AT_ONCE_S`), expired at its deadline, failed.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import grpc

from machine import write_result
from t2i_policy.level import Level
from t2i_policy.profile import BandLoss, LevelProfile, render_profile
from t2i_protos.v1 import gateway_pb2, gateway_pb2_grpc
from t2ictl.processes import ServerProcess

STEPS, CHEAPEST, WORKERS, SLO_S, AT_ONCE_S, START_LIMIT_S = 20, 10, 2, 6.0, 1.0, 300.0
STEP_S = (0.10, 0.12, 0.14, 0.16)  # by batch size
CAPACITY_RPS = WORKERS * len(STEP_S) / STEP_S[-1] / CHEAPEST
POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {{name: bench}}
spec:
  model: {{source: "builtin://scenes", numInferenceSteps: {steps}, guidanceScalePercent: 200, width: 48, height: 48}}
  levels: [{{skippedSteps: 0}}, {{numInferenceSteps: {cheapest}}}]
  workerGroups: [{{name: sim, workers: {workers}, engine: simulated}}]
  slo: {{latencyMilliseconds: {slo_ms}, minQualityPercent: 80}}
  gateway: {{replicas: {gateways}}}
"""


def write_inputs(folder: Path, gateways: int) -> list[str]:
    """Pool file and profile; the arguments that name them."""
    facts = {"steps": STEPS, "cheapest": CHEAPEST, "workers": WORKERS, "slo_ms": round(1e3 * SLO_S)}
    (folder / "pool.yaml").write_text(POOL.format(**facts, gateways=gateways))
    short = BandLoss(Level(0, CHEAPEST), -1.0, 1.01, 0.05, 0.001, 100)
    profile = LevelProfile("simulated", "simulated", STEPS, STEP_S, 0.0, (short,))
    (folder / "profile.json").write_text(render_profile(profile))
    return ["--pool", str(folder / "pool.yaml"), "--profile", str(folder / "profile.json")]


async def ask(stub: "gateway_pb2_grpc.TextToImageAsyncStub", number: int) -> str:
    """How one request ends."""
    began = time.perf_counter()
    try:
        async for event in stub.Generate(gateway_pb2.GenerateRequest(prompt=f"circle {number}"), timeout=SLO_S):
            if event.HasField("done"):
                return "in_time"
    except grpc.aio.AioRpcError as error:
        if time.perf_counter() - began < AT_ONCE_S:
            return "refused_at_once"
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return "expired"
    return "failed"


async def offer(addresses: list[str], rate_rps: float, seconds: float) -> Counter[str]:
    """Poisson arrivals, each at a gateway drawn at random; the same draws for every number of gateways."""
    arrivals, choice = random.Random(1), random.Random(2)
    channels = [grpc.aio.insecure_channel(address) for address in addresses]
    stubs = [gateway_pb2_grpc.TextToImageStub(channel) for channel in channels]
    asked: list[asyncio.Task[str]] = []
    began, at_s = time.perf_counter(), 0.0
    while (at_s := at_s + arrivals.expovariate(rate_rps)) < seconds:
        await asyncio.sleep(max(0.0, began + at_s - time.perf_counter()))
        asked.append(asyncio.create_task(ask(choice.choice(stubs), len(asked))))
    ends = Counter(await asyncio.gather(*asked))
    for channel in channels:
        await channel.close()
    return ends


async def measure(gateways: int, load: float, seconds: float) -> dict[str, float]:
    """One pool from start to stop; percent of requests by how they ended."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        common = write_inputs(folder, gateways)
        workers = [_worker(folder, common, number) for number in range(WORKERS)]
        processes = list(workers)
        try:
            for worker in workers:
                await worker.start()
            for worker in workers:
                await worker.wait_ready(START_LIMIT_S)
            fronts = [_gateway(folder, common, workers, number) for number in range(gateways)]
            processes += fronts
            for front in fronts:
                await front.start()
            for front in fronts:
                await front.wait_ready(START_LIMIT_S)
            await asyncio.sleep(2.0)  # until each has heard of its workers
            ends = await offer([front.address for front in fronts], load * CAPACITY_RPS, seconds)
        finally:
            for process in reversed(processes):
                await process.stop(10)
    total = sum(ends.values())
    percent = {f"{way}_percent": round(100 * count / total, 1) for way, count in sorted(ends.items())}
    return {"gateways": gateways, "load": load, "offered": total, **percent}


def _worker(folder: Path, common: list[str], number: int) -> ServerProcess:
    name = f"sim-{number}"
    arguments = [*common, "--group", "sim", "--name", name, "--max-batch", str(len(STEP_S))]
    return ServerProcess(name, "t2i_worker", arguments, folder)


def _gateway(folder: Path, common: list[str], workers: list[ServerProcess], number: int) -> ServerProcess:
    addresses = ",".join(worker.address for worker in workers)
    return ServerProcess(f"gateway-{number}", "t2i_gateway", [*common, "--workers", addresses, "--local"], folder)


def main() -> None:
    """Measure each number of gateways at each load."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gateways", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--loads", type=float, nargs="+", default=[1.25])
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--note", default="", help="what else ran on the machine, or which version this is")
    parser.add_argument("--out", type=Path, default=Path("build/bench/several-gateways.json"))
    options = parser.parse_args()
    rows = [
        asyncio.run(measure(gateways, load, options.seconds)) for load in options.loads for gateways in options.gateways
    ]
    write_result(options.out, {"note": options.note, "slo_s": SLO_S, "capacity_rps": CAPACITY_RPS, "rows": rows})


if __name__ == "__main__":
    main()
