"""What the gateway costs: `make bench-gateway` -> build/bench/gateway.json.

One gateway process and simulated workers on this machine; the same requests go through the gateway and straight to a
worker, in alternating rounds of one run. `added_*` are differences of percentiles at one request in flight.
`rps_per_core` is requests served per CPU-second of the gateway process under load (its own CPU time, so clients and
workers on the same cores do not count); `bare_relay_rps_per_core` is the same for a process that only copies bytes
from one gRPC stream to another: what gRPC in Python costs on this machine before any gateway. Half of the prompts
repeat an earlier one; the index holds `--cached` prompts.
"""

import argparse
import asyncio
import multiprocessing
import tempfile
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from bench.gateway.bare_relay import measure_relay
from bench.kit.arguments import BenchParser
from bench.kit.machine import process_cpu_s
from bench.kit.output import write_json
from bench.kit.simulated_pool import RunningPool, ServedPool, running
from t2i_cache.keys import LatentKey, ModelKey
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.scope import scope_id
from t2i_cache.stores import open_store
from t2i_policy.level import Level
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_protos.v1 import gateway_pb2, gateway_pb2_grpc, level_pb2, worker_pb2, worker_pb2_grpc
from t2i_scenes import caption, embedder_path, sample_scene
from t2i_sources.embedder import Embedder
from t2ictl.processes import ServerProcess

STEPS, TENANT, MAX_BATCH, WARM_UP = 20, "local", 64, 50
IN_FLIGHT, CLIENTS = 24, 2
RELAY_IN_FLIGHT = 48
LEVELS = "{skippedSteps: 0}, {skippedSteps: 10}, {numInferenceSteps: 10}"
LOSSES = (
    BandLoss(Level(10, STEPS), -1.0, 0.7, 0.1, 0.001, 100),
    BandLoss(Level(10, STEPS), 0.7, 0.9, 0.03, 0.001, 100),
    BandLoss(Level(10, STEPS), 0.9, 1.01, 0.002, 0.001, 100),
    BandLoss(Level(0, 10), -1.0, 1.01, 0.05, 0.001, 100),
)
PROFILE = LevelProfile("simulated", "simulated", STEPS, (0.00025,) * MAX_BATCH, 0.0, LOSSES)
PARSER = BenchParser(__doc__, "gateway", quick={"rounds": 100, "seconds": 3.0, "cached": 200, "relayed": 240})
PARSER.add_argument("--rounds", type=int, default=1000, help="requests on each way, one in flight")
PARSER.add_argument("--seconds", type=float, default=15.0, help="of load")
PARSER.add_argument("--cached", type=int, default=2000, help="prompts in the index")
PARSER.add_argument("--relayed", type=int, default=2400, help="requests through the bare relay")


async def fill_store(folder: Path, count: int) -> None:
    """Records with real embeddings and one-value tensors: the gateway reads only the embeddings."""
    scope = scope_id("Tenant", "bench", TENANT)
    assert scope is not None
    store, embedder = open_store(folder.as_uri()), Embedder(embedder_path())
    key = ModelKey("simulated", "simulated", STEPS, 48, 48, 2000, "bf16", embedder=embedder.digest)
    rng = np.random.default_rng(0)
    for index in range(count):
        vector = embedder.embed_now(caption(sample_scene(rng), rng)).vector
        place = LatentKey(scope, key.fingerprint, f"entry-{index}", 10)
        await store.put(place, encode_record(LatentRecord(place, "float32", (1,), bytes(4), vector, time.time())))
    await store.close()


def prompts(count: int, seed: int) -> list[str]:
    """Captions of which half repeat an earlier one."""
    rng = np.random.default_rng(seed)
    said: list[str] = []
    while len(said) < count:
        repeat = said and rng.random() < 0.5
        said.append(said[int(rng.integers(len(said)))] if repeat else caption(sample_scene(rng), rng))
    return said


async def through_gateway(stub: "gateway_pb2_grpc.TextToImageAsyncStub", prompt: str) -> None:
    last = None
    async for event in stub.Generate(gateway_pb2.GenerateRequest(prompt=prompt, seed=1, exact=True), timeout=30):
        last = event
    assert last is not None
    assert last.HasField("done")


def order_for(prompt: str) -> worker_pb2.WorkerGenerateRequest:
    level = level_pb2.Level(num_inference_steps=STEPS)
    return worker_pb2.WorkerGenerateRequest(prompt=prompt, seed=1, width=48, height=48, guidance_scale=2, level=level)


async def straight(stub: "worker_pb2_grpc.WorkerAsyncStub", prompt: str) -> None:
    last = None
    async for event in stub.Generate(order_for(prompt), timeout=30):
        last = event
    assert last is not None
    assert last.HasField("finished")


async def measure_added(gateway: str, worker: str, rounds: int) -> dict[str, float]:
    """Latency percentiles of both ways, in alternation, one request in flight."""
    took_ms = []  # through the gateway, straight
    async with grpc.aio.insecure_channel(gateway) as one, grpc.aio.insecure_channel(worker) as other:
        front, back = gateway_pb2_grpc.TextToImageStub(one), worker_pb2_grpc.WorkerStub(other)
        for prompt in prompts(rounds + WARM_UP, seed=1):
            began = time.perf_counter()
            await through_gateway(front, prompt)
            middle = time.perf_counter()
            await straight(back, prompt)
            took_ms.append((1e3 * (middle - began), 1e3 * (time.perf_counter() - middle)))
    found: dict[str, float] = {}
    for name, place in (("p50_ms", 50), ("p99_ms", 99)):
        with_gateway, direct = np.percentile(took_ms[WARM_UP:], place, axis=0).tolist()
        found |= {f"gateway_{name}": with_gateway, f"direct_{name}": direct, f"added_{name}": with_gateway - direct}
    return found


def load_client(address: str, seconds: float, seed: int) -> dict[str, int]:
    """A client process: requests served and failed in a closed loop."""
    return asyncio.run(_load(address, seconds, seed))


async def _load(address: str, seconds: float, seed: int) -> dict[str, int]:
    said = prompts(20_000, seed)
    until = time.monotonic() + seconds
    counts = {"served": 0, "failed": 0}
    async with grpc.aio.insecure_channel(address) as channel:
        stub = gateway_pb2_grpc.TextToImageStub(channel)

        async def loop(first: int) -> None:
            at = first
            while time.monotonic() < until:
                try:
                    await through_gateway(stub, said[at % len(said)])
                    counts["served"] += 1
                except grpc.aio.AioRpcError:
                    counts["failed"] += 1
                at += IN_FLIGHT

        await asyncio.gather(*(loop(first) for first in range(IN_FLIGHT)))
    return counts


async def measure_throughput(gateway: ServerProcess, seconds: float) -> dict[str, float]:
    """Served requests per CPU-second of the gateway."""
    assert gateway.process is not None
    before, began = process_cpu_s(gateway.process.pid), time.monotonic()
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(CLIENTS, mp_context=multiprocessing.get_context("spawn")) as clients:
        counts = await asyncio.gather(
            *(loop.run_in_executor(clients, load_client, gateway.address, seconds, 10 + n) for n in range(CLIENTS))
        )
    used_s, wall_s = process_cpu_s(gateway.process.pid) - before, time.monotonic() - began
    served = sum(count["served"] for count in counts)
    return {
        "rps_per_core": served / used_s,
        "served": served,
        "failed": sum(count["failed"] for count in counts),
        "gateway_cpu_s": used_s,
        "wall_s": wall_s,
    }


def decide_percentile_ms(metrics_address: str, share: float) -> float:
    """By linear interpolation in the gateway's own histogram."""
    with urllib.request.urlopen(f"http://{metrics_address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    name = "t2i_gateway_decide_seconds_bucket{le="
    buckets = [(float(line.split('"')[1]), float(line.split()[-1])) for line in lines if line.startswith(name)]
    wanted = share * buckets[-1][1]
    low, below = 0.0, 0.0
    for high, count in buckets:
        if count >= wanted:
            return 1e3 * (low + (high - low) * (wanted - below) / max(1.0, count - below))
        low, below = high, count
    return float("inf")


async def measure(pool: RunningPool, options: argparse.Namespace) -> dict[str, float]:
    gateway, worker = pool.gateways[0], pool.workers[0]
    figures = await measure_added(gateway.address, worker.address, options.rounds)
    for place in (99, 50):
        figures[f"decide_p{place}_ms"] = decide_percentile_ms(gateway.metrics_address, place / 100)
    figures |= await measure_throughput(gateway, options.seconds)
    order = order_for("a red circle").SerializeToString()
    relayed = await measure_relay(worker.address, order, options.relayed, RELAY_IN_FLIGHT)
    return {**figures, "cached_prompts": options.cached, "bare_relay_rps_per_core": relayed}


async def run(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    await fill_store(folder / "latents", options.cached)
    arguments = ["--store", (folder / "latents").as_uri(), "--embedder", str(embedder_path())]
    async with running(ServedPool(LEVELS, PROFILE, 2.0, MAX_BATCH, max_queued=1000), folder, arguments) as pool:
        return await measure(pool, options)


def main() -> None:
    options = PARSER.parse()
    with tempfile.TemporaryDirectory(prefix="t2i-bench-") as folder:
        write_json(options.out, asyncio.run(run(Path(folder), options)))


if __name__ == "__main__":
    main()
