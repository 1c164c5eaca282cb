"""What the gateway costs: `make bench-gateway` -> build/bench/gateway.json.

One gateway process and simulated workers on this machine; the same requests go through the gateway and straight to a
worker, in alternating rounds of one run. `added_*` are differences of percentiles at one request in flight.
`rps_per_core` is requests served per CPU-second of the gateway process under load (its own CPU time, so clients and
workers on the same cores do not count); `bare_relay_rps_per_core` is the same for a process that only copies bytes
from one gRPC stream to another: what gRPC in Python costs on this machine before any gateway. Half of the prompts
repeat an earlier one; the index holds 2,000 prompts.
"""

import argparse
import asyncio
import multiprocessing
import os
import tempfile
import time
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import grpc
import numpy as np

from bare_relay import measure_relay
from machine import write_result
from t2i_cache.keys import LatentKey, ModelKey
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.scope import scope_id
from t2i_cache.stores import open_store
from t2i_policy.level import Level
from t2i_policy.profile import BandLoss, LevelProfile, render_profile
from t2i_protos.v1 import gateway_pb2, gateway_pb2_grpc, level_pb2, worker_pb2, worker_pb2_grpc
from t2i_scenes import caption, embedder_path, sample_scene
from t2i_sources.embedder import Embedder
from t2ictl.processes import ServerProcess

STEPS, CACHED, TENANT = 20, 2000, "local"
STEP_S = 0.00025
POOL = f"""
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {{name: bench}}
spec:
  model: {{source: "builtin://scenes", numInferenceSteps: {STEPS}, guidanceScalePercent: 200, width: 48, height: 48}}
  levels: [{{skippedSteps: 0}}, {{skippedSteps: 10}}, {{numInferenceSteps: 10}}]
  workerGroups: [{{name: sim, workers: 2, engine: simulated}}]
  slo: {{latencyMilliseconds: 2000, minQualityPercent: 80}}
  gateway: {{replicas: 1, maxQueuedRequests: 1000}}
"""


def write_inputs(folder: Path) -> None:
    """Pool file, profile, and a latent store with CACHED prompts."""
    (folder / "pool.yaml").write_text(POOL)
    losses = tuple(
        BandLoss(Level(10, STEPS), low, high, loss, 0.001, 100)
        for low, high, loss in ((-1.0, 0.7, 0.1), (0.7, 0.9, 0.03), (0.9, 1.01, 0.002))
    )
    short = BandLoss(Level(0, 10), -1.0, 1.01, 0.05, 0.001, 100)
    profile = LevelProfile("simulated", "simulated", STEPS, (STEP_S,) * 64, 0.0, (*losses, short))
    (folder / "profile.json").write_text(render_profile(profile))
    asyncio.run(fill_store(folder / "latents"))


async def fill_store(folder: Path) -> None:
    """Records with real embeddings and one-value tensors: the gateway reads only the embeddings."""
    scope = scope_id("Tenant", "bench", TENANT)
    assert scope is not None
    store, embedder = open_store(folder.as_uri()), Embedder(embedder_path())
    key = ModelKey("simulated", "simulated", STEPS, 48, 48, 2000, "bf16", embedder=embedder.digest)
    rng = np.random.default_rng(0)
    for index in range(CACHED):
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
    """One request, read to its end."""
    last = None
    async for event in stub.Generate(gateway_pb2.GenerateRequest(prompt=prompt, seed=1, exact=True), timeout=30):
        last = event
    assert last is not None
    assert last.HasField("done")


def order_for(prompt: str) -> worker_pb2.WorkerGenerateRequest:
    """A full run at a worker."""
    level = level_pb2.Level(num_inference_steps=STEPS)
    return worker_pb2.WorkerGenerateRequest(prompt=prompt, seed=1, width=48, height=48, guidance_scale=2, level=level)


async def straight(stub: "worker_pb2_grpc.WorkerAsyncStub", prompt: str) -> None:
    """The same request at a worker."""
    last = None
    async for event in stub.Generate(order_for(prompt), timeout=30):
        last = event
    assert last is not None
    assert last.HasField("finished")


async def measure_added(gateway: str, worker: str, rounds: int) -> dict[str, float]:
    """Latency percentiles of both ways, in alternation, one request in flight."""
    async with grpc.aio.insecure_channel(gateway) as one, grpc.aio.insecure_channel(worker) as other:
        stubs = gateway_pb2_grpc.TextToImageStub(one), worker_pb2_grpc.WorkerStub(other)
        took: tuple[list[float], list[float]] = ([], [])
        for index, prompt in enumerate(prompts(rounds + 50, seed=1)):
            began = time.perf_counter()
            await through_gateway(stubs[0], prompt)
            middle = time.perf_counter()
            await straight(stubs[1], prompt)
            if index >= 50:
                took[0].append(1e3 * (middle - began))
                took[1].append(1e3 * (time.perf_counter() - middle))
    with_gateway, direct = (np.array(times) for times in took)
    return {
        "gateway_p50_ms": float(np.percentile(with_gateway, 50)),
        "gateway_p99_ms": float(np.percentile(with_gateway, 99)),
        "direct_p50_ms": float(np.percentile(direct, 50)),
        "direct_p99_ms": float(np.percentile(direct, 99)),
        "added_p50_ms": float(np.percentile(with_gateway, 50) - np.percentile(direct, 50)),
        "added_p99_ms": float(np.percentile(with_gateway, 99) - np.percentile(direct, 99)),
    }


def load_client(address: str, seconds: float, in_flight: int, seed: int) -> tuple[int, int]:
    """A client process: (served, failed) in a closed loop."""
    return asyncio.run(_load(address, seconds, in_flight, seed))


async def _load(address: str, seconds: float, in_flight: int, seed: int) -> tuple[int, int]:
    said = prompts(20_000, seed)
    until = time.monotonic() + seconds
    counts = [0, 0]
    async with grpc.aio.insecure_channel(address) as channel:
        stub = gateway_pb2_grpc.TextToImageStub(channel)

        async def loop(first: int) -> None:
            at = first
            while time.monotonic() < until:
                try:
                    await through_gateway(stub, said[at % len(said)])
                    counts[0] += 1
                except grpc.aio.AioRpcError:
                    counts[1] += 1
                at += in_flight

        await asyncio.gather(*(loop(first) for first in range(in_flight)))
    return counts[0], counts[1]


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def decide_percentile(metrics_address: str, share: float) -> float:
    """Milliseconds by linear interpolation in the gateway's own histogram."""
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


async def run(folder: Path, rounds: int, seconds: float) -> dict[str, object]:
    """Start everything, measure, stop."""
    common = ["--pool", str(folder / "pool.yaml"), "--profile", str(folder / "profile.json")]
    store = ["--store", (folder / "latents").as_uri()]
    workers = [
        ServerProcess(
            f"sim-{n}", "t2i_worker", [*common, "--group", "sim", "--name", f"sim-{n}", "--max-batch", "64"], folder
        )
        for n in range(2)
    ]
    processes = list(workers)
    try:
        for worker in workers:
            await worker.start()
        for worker in workers:
            await worker.wait_ready(60)
        addresses = ",".join(worker.address for worker in workers)
        options = ["--workers", addresses, "--local", "--embedder", str(embedder_path())]
        gateway = ServerProcess("gateway", "t2i_gateway", [*common, *store, *options], folder)
        processes.insert(0, gateway)
        await gateway.start()
        await gateway.wait_ready(60)
        await asyncio.sleep(1.0)  # the restored catalogue and the first load reports
        result: dict[str, object] = dict(await measure_added(gateway.address, workers[0].address, rounds))
        result["decide_p99_ms"] = decide_percentile(gateway.metrics_address, 0.99)
        result["decide_p50_ms"] = decide_percentile(gateway.metrics_address, 0.5)
        result |= await measure_throughput(gateway, seconds)
        order = order_for("a red circle").SerializeToString()
        result["bare_relay_rps_per_core"] = await measure_relay(workers[0].address, order, 2400, 48)
        return result
    finally:
        for process in processes:
            await process.stop(20)


async def measure_throughput(gateway: ServerProcess, seconds: float) -> dict[str, object]:
    """Served requests per CPU-second of the gateway."""
    assert gateway.process is not None
    before, began = cpu_seconds(gateway.process.pid), time.monotonic()
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as clients:
        counts = await asyncio.gather(
            *(loop.run_in_executor(clients, load_client, gateway.address, seconds, 24, 10 + n) for n in range(2))
        )
    used, wall = cpu_seconds(gateway.process.pid) - before, time.monotonic() - began
    served = sum(count[0] for count in counts)
    return {
        "rps_per_core": served / used,
        "served": served,
        "failed": sum(count[1] for count in counts),
        "gateway_cpu_s": used,
        "wall_s": wall,
        "cached_prompts": CACHED,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/bench/gateway.json"))
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=15.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="t2i-bench-") as name:
        write_inputs(Path(name))
        write_result(arguments.out, asyncio.run(run(Path(name), arguments.rounds, arguments.seconds)))


if __name__ == "__main__":
    main()
