"""The operator at 1000 pools: `make bench-operator` -> build/bench/operator.json, bench/results/operator.md.

A real API server, the operator as a real process behind the proxy that counts its calls, and a played cluster: pods and
workloads get ready as soon as they are written, every pool's gateway reports demand over gRPC. In this order:

    ready_1000_s            from the first POST of `--pools` pools until the last one is Ready
    rss_mib_1000            the most memory that the operator had by then, or after its restart
    restart_1000_s          from the start of a new process until it has looked at every pool and nothing waits
    restart_writes          writes of that process until `AFTER_RESTART_S` later
    idle_writes             writes in `--idle-minutes` of quiet; leases are left out
    create_to_children_p99_s  from the POST of one more pool until its last child is written, one pool after the other
    plan_after_step_s       the longest of some 2x steps of one pool's demand until the new plan is in its status

Everything shares this machine's cores: operator, proxy, API server, etcd and the played cluster.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from machine import write_result
from operator_process import OperatorProcess
from operator_report import write_page
from played_cluster import PlayedCluster, PlayedGateways
from t2i_testing_kit.kube.proxy import FaultProxy
from t2i_testing_kit.kube.server import KubeServer, kube_server
from t2i_testing_kit.pools import pool_document

CHILDREN = 12
PARALLEL_CREATES = 16
STEADY_RPS = 1.0
AFTER_RESTART_S = 30.0
READY_LIMIT_S = 1800.0
RESTART_LIMIT_S = 600.0
SHOW_EVERY_S = 5.0


@dataclass
class Bench:
    """What the phases share; `figures` becomes the JSON."""

    options: argparse.Namespace
    server: KubeServer
    proxy: FaultProxy
    cluster: PlayedCluster
    operator: OperatorProcess
    figures: dict[str, Any] = field(default_factory=dict)

    def path(self, number: int) -> str:
        """Pools are spread over the namespaces."""
        return f"/apis/t2iserving.dev/v1alpha1/namespaces/{self.namespace(number)}/t2iservingpools"

    def namespace(self, number: int) -> str:
        """Of the pool with this number."""
        return f"bench-{number % self.options.namespaces:03}"

    def key(self, number: int) -> str:
        """As the operator names it."""
        return f"{self.namespace(number)}/p{number}"

    async def create(self, number: int) -> None:
        """POST one pool."""
        await self.cluster.call("POST", self.path(number), pool_document(f"p{number}"))

    def is_ready(self, number: int) -> bool:
        """True if the pool has been Ready."""
        return self.key(number) in self.cluster.ready_at_s

    def is_planned_after(self, key: str, revision: int) -> bool:
        """True if its plan is a later one."""
        return bool(self.cluster.plans[key]["revision"] > revision)

    @property
    def writes(self) -> int:
        """Of the operator so far, events included."""
        return len(self.proxy.record.writes) + self.proxy.record.events


def show(text: str) -> None:
    """Progress goes to standard error; standard output is the JSON."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def counted(bench: Bench, phase: str) -> Iterator[None]:
    """Reads, writes, processor seconds and load average of a phase, for whoever asks why."""
    record, began_s, cpu_s = bench.proxy.record, time.monotonic(), bench.operator.cpu_s()
    reads, writes, events = record.reads, len(record.writes), record.events
    show(f"{phase} ...")
    yield
    bench.figures.setdefault("phases", {})[phase] = {
        "took_s": round(time.monotonic() - began_s, 1),
        "reads": record.reads - reads,
        "writes": len(record.writes) - writes,
        "events": record.events - events,
        "operator_cpu_s": round(bench.operator.cpu_s() - cpu_s, 1),
        "load_average": round(os.getloadavg()[0], 2),
    }


async def ready(bench: Bench) -> None:
    """All pools at once, as fast as the API server takes them."""
    pools = bench.options.pools
    slots = asyncio.Semaphore(PARALLEL_CREATES)

    async def create(number: int) -> None:
        async with slots:
            await bench.create(number)

    began_s = time.monotonic()
    with counted(bench, "ready"):
        await asyncio.gather(*(create(number) for number in range(pools)))
        bench.figures["created_s"] = round(time.monotonic() - began_s, 1)
        while not await bench.cluster.wait(lambda: len(bench.cluster.ready_at_s) >= pools, SHOW_EVERY_S):
            show(f"  {len(bench.cluster.ready_at_s)} of {pools} ready after {time.monotonic() - began_s:.0f} s")
            if time.monotonic() - began_s > READY_LIMIT_S:
                raise RuntimeError(f"not ready: see {bench.operator.log}")
    bench.figures["ready_1000_s"] = round(max(bench.cluster.ready_at_s.values()) - began_s, 1)
    await quiet(bench)
    bench.figures["rss_mib_1000"] = round(bench.operator.peak_rss_mib(), 1)


async def quiet(bench: Bench) -> None:
    """Until the operator has written nothing for some seconds: labels and events may follow readiness."""
    seen = -1
    while seen != bench.writes:
        seen = bench.writes
        await asyncio.sleep(SHOW_EVERY_S)


async def restart(bench: Bench) -> None:
    """SIGTERM, a new process, every pool looked at."""
    await asyncio.to_thread(bench.operator.stop)
    written, began_s = bench.writes, time.monotonic()
    bench.operator.start()
    with counted(bench, "restart"):
        while not await looked_at_all(bench):
            if time.monotonic() - began_s > RESTART_LIMIT_S:
                raise RuntimeError(f"the restart does not end: see {bench.operator.log}")
        bench.figures["restart_1000_s"] = round(time.monotonic() - began_s, 1)
        await asyncio.sleep(AFTER_RESTART_S)
    bench.figures["restart_writes"] = bench.writes - written
    bench.figures["rss_mib_1000"] = max(bench.figures["rss_mib_1000"], round(bench.operator.peak_rss_mib(), 1))
    bench.figures["rss_mib_after_restart"] = round(bench.operator.rss_mib(), 1)


async def looked_at_all(bench: Bench) -> bool:
    """Every pool at least once, and no pool waits for its turn. Asked a few times a second."""
    await asyncio.sleep(0.2)
    pools = await bench.operator.metric("t2i_operator_pools")
    return pools >= bench.options.pools and await bench.operator.metric("t2i_operator_queued_pools") == 0


async def idle(bench: Bench) -> None:
    """Nothing happens but the operator's own clocks: resyncs, polls, watches that end and begin."""
    written, end_s = bench.writes, time.monotonic() + 60 * bench.options.idle_minutes
    first = len(bench.proxy.record.writes)
    with counted(bench, "idle"):
        while (left_s := end_s - time.monotonic()) > 0:
            await asyncio.sleep(min(60.0, left_s))
            show(f"  {bench.writes - written} writes, {max(0.0, left_s - 60) / 60:.0f} minutes left")
    bench.figures["idle_writes"] = bench.writes - written
    bench.figures["idle_minutes"] = bench.options.idle_minutes
    if bench.figures["idle_writes"]:
        bench.figures["idle_written"] = Counter(bench.proxy.record.writes[first:]).most_common(5)
    bench.figures["rss_mib_after_idle"] = round(bench.operator.rss_mib(), 1)


async def create_to_children(bench: Bench) -> None:
    """One more pool after the other; the clock runs from before the POST to the answer to the last child's write."""
    took_s = []
    with counted(bench, "create to children"):
        for number in range(bench.options.pools, bench.options.pools + bench.options.samples):
            took_s.append(await one_pool(bench, number))
            await bench.cluster.wait(partial(bench.is_ready, number), 60.0)
    took_s.sort()
    bench.figures["create_to_children_p50_s"] = round(statistics.median(took_s), 3)
    bench.figures["create_to_children_p99_s"] = round(took_s[min(len(took_s) - 1, int(0.99 * len(took_s)))], 3)
    bench.figures["create_to_children_samples"] = len(took_s)


async def one_pool(bench: Bench, number: int) -> float:
    """Create it; seconds until all its children were written."""
    part, count, complete = f"/namespaces/{bench.namespace(number)}/", Counter[str](), asyncio.Event()

    def created(path: str) -> None:
        count["children"] += part in path and f"/p{number}-" in path
        if count["children"] == CHILDREN:
            complete.set()

    bench.proxy.on_created = created
    began_s = time.monotonic()
    await bench.create(number)
    async with asyncio.timeout(60.0):
        await complete.wait()
    return time.monotonic() - began_s


async def plan_after_step(bench: Bench, gateways: PlayedGateways) -> None:
    """One pool with a gateway of its own, whose demand doubles from 1 to 2, 4, 8 requests/s."""
    number = bench.options.pools + bench.options.samples
    key = bench.key(number)
    bench.cluster.give_gateway(key, gateways)
    took_s = []
    with counted(bench, "plan after a step"):
        await bench.create(number)
        await bench.cluster.wait(partial(bench.is_ready, number), 60.0)
        await bench.cluster.wait(lambda: bench.cluster.plans[key]["demandMilliRps"] > 0, 60.0)
        for _ in range(bench.options.steps):
            await quiet(bench)
            revision = bench.cluster.plans[key]["revision"]
            gateways.rate_rps *= 2
            began_s = time.monotonic()
            if not await bench.cluster.wait(partial(bench.is_planned_after, key, revision), 60.0):
                raise RuntimeError(f"no new plan: see {bench.operator.log}")
            took_s.append(time.monotonic() - began_s)
    bench.figures["plan_after_step_s"] = round(max(took_s), 3)
    bench.figures["plan_steps_s"] = [round(one, 3) for one in took_s]


async def run(options: argparse.Namespace, server: KubeServer) -> dict[str, Any]:
    """All phases; the operator is stopped whatever happens."""
    async with AsyncExitStack() as stack:
        everybody, stepping = PlayedGateways(STEADY_RPS), PlayedGateways(STEADY_RPS)
        for gateways in (everybody, stepping):
            await gateways.start(stack)
        proxy = await stack.enter_async_context(FaultProxy(server))
        cluster = await stack.enter_async_context(PlayedCluster(server, everybody))
        log = options.out.parent / "operator.log"
        operator = OperatorProcess(server.user("admin", ("system:masters",), proxy.url), log)
        bench = Bench(options, server, proxy, cluster, operator)
        for number in range(options.namespaces):
            await cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": bench.namespace(number)}})
        operator.start()
        stack.push_async_callback(asyncio.to_thread, operator.stop)
        show(f"operator {operator.pid}, log {log}")
        await operator.until_leader()
        await ready(bench)
        await restart(bench)
        await idle(bench)
        await create_to_children(bench)
        await plan_after_step(bench, stepping)
        bench.figures["polls_answered"] = everybody.asked
        bench.figures["watch_restarts"] = await operator.metric("t2i_operator_watch_restarts_total")
        bench.figures["log_lines"] = len(log.read_text().splitlines())
        return bench.figures


def main() -> int:
    """Exit code 1 if the operator wrote what it should not have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/bench/operator.json"))
    parser.add_argument("--pools", type=int, default=1000)
    parser.add_argument("--namespaces", type=int, default=20, help="that the pools are spread over")
    parser.add_argument("--idle-minutes", type=float, default=10.0)
    parser.add_argument("--samples", type=int, default=100, help="pools created one after the other, for the p99")
    parser.add_argument("--steps", type=int, default=3, help="doublings of the demand")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    (options.out.parent / "operator.log").unlink(missing_ok=True)
    before = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory() as folder, kube_server(Path(folder)) as server:
        figures = asyncio.run(run(options, server))
    facts = {"pools": options.pools, "namespaces": options.namespaces, "load_average_before": before}
    write_result(options.out, {**figures, **facts})
    if options.pools >= parser.get_default("pools"):
        write_page(json.loads(options.out.read_text()))
    return 1 if figures["restart_writes"] or figures["idle_writes"] else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that everything is stopped on the way out
    sys.exit(main())
