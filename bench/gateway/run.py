"""What the gateway costs beside a bare relay: `make bench-gateway` -> bench/results/gateway.md.

One gateway and two simulated workers on this machine, and for each door a process that only copies: bytes from one gRPC
stream to another, and Starlette with uvicorn that puts the worker's image into JSON. All ways take turns in every round
of one run, so what else the machine does meets them alike. Half of the prompts repeat an earlier one; the index holds
`--cached` prompts.

`relay_share` and `http_relay_share`: requests a second of a core that the gateway makes of those of the bare relay of
its door, in a closed loop. Counted is each process's own CPU time, as clients and workers share the cores; the median
over rounds. `added_*`: percentiles at `--rate` requests a second by the gateway, less those straight from a worker by
gRPC.
"""

import argparse
import asyncio
import multiprocessing
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.gateway.asked import STEPS, AskedWay, Wire
from bench.gateway.bare_relays import bare_relay, serve_grpc, serve_http
from bench.gateway.clients import Heard, at_a_rate, in_a_closed_loop
from bench.kit.arguments import BenchParser
from bench.kit.machine import load_average, machine_line, process_cpu_s
from bench.kit.output import say, write_json, write_page
from bench.kit.simulated_pool import RunningPool, ServedPool, running
from t2i_cache.keys import LatentKey, ModelKey
from t2i_cache.records import LatentRecord, encode_record
from t2i_cache.scope import scope_id
from t2i_cache.stores import open_store
from t2i_policy.level import Level
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_scenes import caption, embedder_path, sample_scene
from t2i_sources.embedder import Embedder

TENANT, MAX_BATCH, CLIENTS = "local", 64, 2
LEVELS = "{skippedSteps: 0}, {skippedSteps: 10}, {numInferenceSteps: 10}"
LOSSES = (
    BandLoss(Level(10, STEPS), -1.0, 0.7, 0.1, 0.001, 100),
    BandLoss(Level(10, STEPS), 0.7, 0.9, 0.03, 0.001, 100),
    BandLoss(Level(10, STEPS), 0.9, 1.01, 0.002, 0.001, 100),
    BandLoss(Level(0, 10), -1.0, 1.01, 0.05, 0.001, 100),
)
PROFILE = LevelProfile("simulated", "simulated", STEPS, (0.00025,) * MAX_BATCH, 0.0, LOSSES)
PARSER = BenchParser(__doc__, "gateway", quick={"rounds": 2, "seconds": 2.0, "cached": 200}, page=True)
PARSER.add_argument("--rounds", type=int, default=8, help="in each of which every way has its turn")
PARSER.add_argument("--seconds", type=float, default=5.0, help="of each turn")
PARSER.add_argument("--rate", type=float, default=20.0, help="requests a second at which latencies are measured")
PARSER.add_argument("--cached", type=int, default=2000, help="prompts in the index")


@dataclass(slots=True)
class Turns:
    """What was heard by one way, over all rounds."""

    way: AskedWay
    failed: int = 0
    took_ms: list[float] = field(default_factory=list)  # at a rate
    cpu_ms: list[float] = field(default_factory=list)  # of the process between, for a request of each closed loop
    rps: list[float] = field(default_factory=list)  # of the same loops, by the clock

    def latency(self) -> dict[str, float]:
        """Its percentiles."""
        p50, p99 = np.percentile(self.took_ms, (50, 99)).tolist()
        return {f"{self.way.name}_p50_ms": p50, f"{self.way.name}_p99_ms": p99}

    def cost(self) -> dict[str, float]:
        """What a request costs the process between, and how many there were a second of all cores."""
        return {f"{self.way.name}_cpu_ms": median(self.cpu_ms), f"{self.way.name}_rps": median(self.rps)}


class Crowd:
    """The client processes."""

    def __init__(self, clients: ProcessPoolExecutor, options: argparse.Namespace) -> None:
        self._clients = clients
        self._options = options

    async def pace(self, turns: Turns, number: int) -> None:
        """One turn at the rate."""
        heard = await self._one(partial(at_a_rate, turns.way, self._options.rate, self._options.seconds, number))
        turns.failed += heard.failed
        turns.took_ms += heard.took_ms

    async def load(self, turns: Turns, number: int) -> None:
        """One turn in a closed loop."""
        before_s, seconds = process_cpu_s(turns.way.pid), self._options.seconds
        loops = [partial(in_a_closed_loop, turns.way, seconds, CLIENTS * number + client) for client in range(CLIENTS)]
        heard = await asyncio.gather(*map(self._one, loops))
        served = sum(len(one.took_ms) for one in heard)
        turns.failed += sum(one.failed for one in heard)
        turns.cpu_ms.append(1e3 * (process_cpu_s(turns.way.pid) - before_s) / served)
        turns.rps.append(served / max(one.wall_s for one in heard))

    async def _one(self, client: "partial[Heard]") -> Heard:
        return await asyncio.get_running_loop().run_in_executor(self._clients, client)


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


def decide_ms(metrics_address: str, share: float) -> float:
    """A percentile of the time of decisions, by linear interpolation in the gateway's own histogram."""
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


async def measure(pool: RunningPool, ways: Sequence[AskedWay], options: argparse.Namespace) -> dict[str, Any]:
    """Every way, in turn, in every round."""
    found = [Turns(way) for way in ways]
    with ProcessPoolExecutor(CLIENTS, mp_context=multiprocessing.get_context("spawn")) as clients:
        crowd = Crowd(clients, options)
        for number in range(options.rounds):
            say(f"round {number + 1} of {options.rounds}")
            for turns in found:
                await crowd.pace(turns, number)
        decisions = {
            f"decide_p{place}_ms": decide_ms(pool.gateways[0].metrics_address, place / 100) for place in (50, 99)
        }
        loaded = [turns for turns in found if turns.way.pid]
        for number in range(options.rounds):
            say(f"closed loop {number + 1} of {options.rounds}")
            for turns in loaded:
                await crowd.load(turns, options.rounds + number)
    figures = {name: value for turns in found for name, value in turns.latency().items()}
    figures |= {name: value for turns in loaded for name, value in turns.cost().items()}
    return (
        shares({turns.way.name: turns for turns in loaded})
        | added(figures)
        | figures
        | decisions
        | {
            "failed": sum(turns.failed for turns in found),
            "rate_rps": options.rate,
            "cached_prompts": options.cached,
            "rounds": options.rounds,
        }
    )


def shares(turns: dict[str, Turns]) -> dict[str, float]:
    """Of each door, the gateway's requests a second of a core over its bare relay's: of neighbours in one round."""

    def share(gateway: str, relay: str) -> float:
        pairs = zip(turns[relay].cpu_ms, turns[gateway].cpu_ms, strict=True)
        return median(bare_ms / ours_ms for bare_ms, ours_ms in pairs)

    return {"relay_share": share("gateway", "relay"), "http_relay_share": share("http_gateway", "http_relay")}


def added(figures: dict[str, float]) -> dict[str, float]:
    """What both doors add to a worker's own answer, and what the bare relays do."""
    doors = {"added": "gateway", "http_added": "http_gateway", "relay_added": "relay", "http_relay_added": "http_relay"}
    return {
        f"{name}_{place}_ms": figures[f"{way}_{place}_ms"] - figures[f"worker_{place}_ms"]
        for name, way in doors.items()
        for place in ("p50", "p99")
    }


async def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    await fill_store(folder / "latents", options.cached)
    arguments = ["--store", (folder / "latents").as_uri(), "--embedder", str(embedder_path())]
    arguments += ["--listen-http", "127.0.0.1:0"]
    before = load_average()
    async with running(ServedPool(LEVELS, PROFILE, 2.0, MAX_BATCH, max_queued=1000), folder, arguments) as pool:
        workers, gateway = [worker.address for worker in pool.workers], pool.gateways[0]
        assert gateway.process is not None
        with ExitStack() as stack:
            by_grpc, by_http = (stack.enter_context(bare_relay(serve, workers)) for serve in (serve_grpc, serve_http))
            ways = (
                AskedWay("worker", Wire.WORKER, workers[0]),
                AskedWay("relay", Wire.WORKER, by_grpc.address, by_grpc.pid),
                AskedWay("gateway", Wire.GATEWAY, gateway.address, gateway.process.pid),
                AskedWay("http_relay", Wire.HTTP, by_http.address, by_http.pid),
                AskedWay("http_gateway", Wire.HTTP, gateway.http_address, gateway.process.pid),
            )
            return await measure(pool, ways, options) | {"load_average_before": before}


def main() -> None:
    options = PARSER.parse()
    with tempfile.TemporaryDirectory(prefix="t2i-bench-") as folder:
        figures = asyncio.run(run(Path(folder), options))
    write_json(options.out, figures)
    write_page(
        options.results / "gateway.md", Path(__file__).with_name("page.md.in"), machine=machine_line(), **figures
    )


if __name__ == "__main__":
    main()
