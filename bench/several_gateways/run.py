"""Several gateways on one overloaded pool: `make bench-several-gateways` -> build/bench/several-gateways.json.

Gateway processes and two workers with the simulated engine on this machine; clients draw a gateway at random, arrivals
are Poisson at `load` of what full batches make at the cheapest level. A client waits as long as the SLO. Each request
ends in one of five ways: an image in time, refused at once (within `AT_ONCE_S`) or later, expired at its deadline,
failed.
"""

import asyncio
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

import grpc

from bench.kit.arguments import BenchParser
from bench.kit.output import write_json
from bench.kit.simulated_pool import ServedPool, running
from t2i_policy.level import Level
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_protos.v1 import gateway_pb2, gateway_pb2_grpc

STEPS, CHEAPEST, WORKERS, SLO_S, AT_ONCE_S = 20, 10, 2, 6.0, 1.0
STEP_S = (0.10, 0.12, 0.14, 0.16)  # by batch size
CAPACITY_RPS = WORKERS * len(STEP_S) / STEP_S[-1] / CHEAPEST
SHORT = BandLoss(Level(0, CHEAPEST), -1.0, 1.01, 0.05, 0.001, 100)
PROFILE = LevelProfile("simulated", "simulated", STEPS, STEP_S, 0.0, (SHORT,))
LEVELS = f"{{skippedSteps: 0}}, {{numInferenceSteps: {CHEAPEST}}}"
PARSER = BenchParser(__doc__, "several-gateways", quick={"gateways": [2], "seconds": 5.0})
PARSER.add_argument("--gateways", type=int, nargs="+", default=[1, 2])
PARSER.add_argument("--loads", type=float, nargs="+", default=[1.25])
PARSER.add_argument("--seconds", type=float, default=40.0)
PARSER.add_argument("--note", default="", help="what else ran on the machine, or which version this is")


async def ask(stub: "gateway_pb2_grpc.TextToImageAsyncStub", number: int) -> str:
    began = time.perf_counter()
    try:
        async for event in stub.Generate(gateway_pb2.GenerateRequest(prompt=f"circle {number}"), timeout=SLO_S):
            if event.HasField("done"):
                return "in_time"
    except grpc.aio.AioRpcError as error:
        if time.perf_counter() - began < AT_ONCE_S:
            return "refused_at_once"
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return "refused_late"
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
    pool = ServedPool(LEVELS, PROFILE, SLO_S, len(STEP_S), WORKERS, gateways)
    with tempfile.TemporaryDirectory() as folder:
        async with running(pool, Path(folder)) as servers:
            ends = await offer([gateway.address for gateway in servers.gateways], load * CAPACITY_RPS, seconds)
    total = ends.total()
    percent = {f"{way}_percent": round(100 * count / total, 1) for way, count in sorted(ends.items())}
    return {"gateways": gateways, "load": load, "offered": total, **percent}


def main() -> None:
    options = PARSER.parse()
    rows = [
        asyncio.run(measure(gateways, load, options.seconds)) for load in options.loads for gateways in options.gateways
    ]
    write_json(options.out, {"note": options.note, "slo_s": SLO_S, "capacity_rps": CAPACITY_RPS, "rows": rows})


if __name__ == "__main__":
    main()
