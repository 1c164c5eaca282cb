"""The operator at 1000 pools: `make bench-operator` -> build/bench/operator.json, bench/results/operator.md.

A real API server, the operator as a real process behind the proxy that counts its calls, and a played cluster: pods and
workloads get ready as soon as they are written, every pool's gateway reports demand over gRPC. In this order:

    ready_1000_s            from the first POST of `--pools` pools until the last one is Ready
    rss_mib_1000            the most memory that the operator had by then, or after its restart
    restart_1000_s          from the start of a new process until it has looked at every pool and nothing waits
    restart_writes          writes of that process until `--restart-seconds` later
    idle_writes             writes in `--idle-minutes` of quiet; leases are left out
    create_to_children_p99_s  from the POST of one more pool until its last child is written, one pool after the other
    plan_after_step_s       the longest of some 2x steps of one pool's demand until the new plan is in its status

Everything shares this machine's cores: operator, proxy, API server, etcd and the played cluster.
"""

import argparse
import asyncio
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

from bench.kit.arguments import BenchParser
from bench.kit.machine import load_average, machine_facts
from bench.kit.output import rows_table, say, write_json, write_page
from bench.operator.played_cluster import PlayedCluster, PlayedGateways
from bench.operator.process import OperatorProcess
from t2i_policy.planning.replan import DWELL_S
from t2i_testing_kit.kube.proxy import FaultProxy
from t2i_testing_kit.kube.server import KubeServer, kube_server
from t2i_testing_kit.pools import pool_document

CHILDREN = 12
PARALLEL_CREATES = 16
STEADY_RPS = 1.0
READY_LIMIT_S = 1800.0
RESTART_LIMIT_S = 600.0
SHOW_EVERY_S = 5.0
PHASES = {
    "phase": "{name}",
    "took s": "{took_s:g}",
    "reads": "{reads:g}",
    "writes": "{writes:g}",
    "events": "{events:g}",
    "operator CPU s": "{operator_cpu_s:g}",
}
TRIAL = {"pools": 10, "namespaces": 2, "idle_minutes": 0.05, "restart_seconds": 5.0, "samples": 3, "steps": 1}
PARSER = BenchParser(__doc__, "operator", quick=TRIAL, page=True)
PARSER.add_argument("--pools", type=int, default=1000)
PARSER.add_argument("--namespaces", type=int, default=20, help="that the pools are spread over")
PARSER.add_argument("--idle-minutes", type=float, default=10.0)
PARSER.add_argument("--restart-seconds", type=float, default=30.0, help="of counting writes after a restart")
PARSER.add_argument("--samples", type=int, default=100, help="pools created one after the other, for the p99")
PARSER.add_argument("--steps", type=int, default=3, help="doublings of the demand")


@dataclass
class ScaleRun:
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
        return f"bench-{number % self.options.namespaces:03}"

    def key(self, number: int) -> str:
        return f"{self.namespace(number)}/p{number}"

    async def create(self, number: int) -> None:
        await self.cluster.call("POST", self.path(number), pool_document(f"p{number}"))

    def is_ready(self, number: int) -> bool:
        return self.key(number) in self.cluster.ready_at_s

    def is_planned_after(self, key: str, revision: int) -> bool:
        return bool(self.cluster.plans[key]["revision"] > revision)

    @property
    def writes(self) -> int:
        """Of the operator so far, events included."""
        return len(self.proxy.record.writes) + self.proxy.record.events


@contextmanager
def counted(run: ScaleRun, phase: str) -> Iterator[None]:
    """Reads, writes, processor seconds and load average of a phase, for whoever asks why."""
    record, began_s, cpu_s = run.proxy.record, time.monotonic(), run.operator.cpu_s()
    reads, writes, events = record.reads, len(record.writes), record.events
    say(f"{phase} ...")
    yield
    run.figures.setdefault("phases", {})[phase] = {
        "took_s": round(time.monotonic() - began_s, 1),
        "reads": record.reads - reads,
        "writes": len(record.writes) - writes,
        "events": record.events - events,
        "operator_cpu_s": round(run.operator.cpu_s() - cpu_s, 1),
        "load_average": load_average(2),
    }


async def ready(run: ScaleRun) -> None:
    """All pools at once, as fast as the API server takes them."""
    pools = run.options.pools
    slots = asyncio.Semaphore(PARALLEL_CREATES)

    async def create(number: int) -> None:
        async with slots:
            await run.create(number)

    began_s = time.monotonic()
    with counted(run, "ready"):
        await asyncio.gather(*(create(number) for number in range(pools)))
        run.figures["created_s"] = round(time.monotonic() - began_s, 1)
        while not await run.cluster.wait(lambda: len(run.cluster.ready_at_s) >= pools, SHOW_EVERY_S):
            say(f"  {len(run.cluster.ready_at_s)} of {pools} ready after {time.monotonic() - began_s:.0f} s")
            if time.monotonic() - began_s > READY_LIMIT_S:
                raise RuntimeError(f"not ready: see {run.operator.log}")
    run.figures["ready_1000_s"] = round(max(run.cluster.ready_at_s.values()) - began_s, 1)
    await quiet(run)
    run.figures["rss_mib_1000"] = round(run.operator.peak_rss_mib(), 1)


async def quiet(run: ScaleRun) -> None:
    """Until the operator has written nothing for some seconds: labels and events may follow readiness."""
    seen = -1
    while seen != run.writes:
        seen = run.writes
        await asyncio.sleep(SHOW_EVERY_S)


async def restart(run: ScaleRun) -> None:
    """SIGTERM, a new process, every pool looked at."""
    await asyncio.to_thread(run.operator.stop)
    written, began_s = run.writes, time.monotonic()
    run.operator.start()
    with counted(run, "restart"):
        while not await looked_at_all(run):
            if time.monotonic() - began_s > RESTART_LIMIT_S:
                raise RuntimeError(f"the restart does not end: see {run.operator.log}")
        run.figures["restart_1000_s"] = round(time.monotonic() - began_s, 1)
        await asyncio.sleep(run.options.restart_seconds)
    run.figures["restart_writes"] = run.writes - written
    run.figures["rss_mib_1000"] = max(run.figures["rss_mib_1000"], round(run.operator.peak_rss_mib(), 1))
    run.figures["rss_mib_after_restart"] = round(run.operator.rss_mib(), 1)


async def looked_at_all(run: ScaleRun) -> bool:
    """Every pool at least once, and no pool waits for its turn. Asked a few times a second."""
    await asyncio.sleep(0.2)
    pools = await run.operator.metric("t2i_operator_pools")
    return pools >= run.options.pools and await run.operator.metric("t2i_operator_queued_pools") == 0


async def idle(run: ScaleRun) -> None:
    """Nothing happens but the operator's own clocks: resyncs, polls, watches that end and begin."""
    written, end_s = run.writes, time.monotonic() + 60 * run.options.idle_minutes
    first = len(run.proxy.record.writes)
    with counted(run, "idle"):
        while (left_s := end_s - time.monotonic()) > 0:
            await asyncio.sleep(min(60.0, left_s))
            say(f"  {run.writes - written} writes, {max(0.0, left_s - 60) / 60:.0f} minutes left")
    run.figures["idle_writes"] = run.writes - written
    run.figures["idle_minutes"] = run.options.idle_minutes
    if run.figures["idle_writes"]:
        run.figures["idle_written"] = Counter(run.proxy.record.writes[first:]).most_common(5)
    run.figures["rss_mib_after_idle"] = round(run.operator.rss_mib(), 1)


async def create_to_children(run: ScaleRun) -> None:
    """One more pool after the other; the clock runs from before the POST to the answer to the last child's write."""
    took_s = []
    with counted(run, "create to children"):
        for number in range(run.options.pools, run.options.pools + run.options.samples):
            took_s.append(await one_pool(run, number))
            await run.cluster.wait(partial(run.is_ready, number), 60.0)
    took_s.sort()
    run.figures["create_to_children_p50_s"] = round(statistics.median(took_s), 3)
    run.figures["create_to_children_p99_s"] = round(took_s[min(len(took_s) - 1, int(0.99 * len(took_s)))], 3)
    run.figures["create_to_children_samples"] = len(took_s)


async def one_pool(run: ScaleRun, number: int) -> float:
    """Create it; seconds until all its children were written."""
    part, count, complete = f"/namespaces/{run.namespace(number)}/", Counter[str](), asyncio.Event()

    def created(path: str) -> None:
        count["children"] += part in path and f"/p{number}-" in path
        if count["children"] == CHILDREN:
            complete.set()

    run.proxy.on_created = created
    began_s = time.monotonic()
    await run.create(number)
    async with asyncio.timeout(60.0):
        await complete.wait()
    return time.monotonic() - began_s


async def plan_after_step(run: ScaleRun, gateways: PlayedGateways) -> None:
    """One pool with a gateway of its own, whose demand doubles from 1 to 2, 4, 8 requests/s."""
    number = run.options.pools + run.options.samples
    key = run.key(number)
    run.cluster.give_gateway(key, gateways)
    took_s = []
    with counted(run, "plan after a step"):
        await run.create(number)
        await run.cluster.wait(partial(run.is_ready, number), 60.0)
        await run.cluster.wait(lambda: run.cluster.plans[key]["demandMilliRps"] > 0, 60.0)
        for _ in range(run.options.steps):
            await quiet(run)
            await asyncio.sleep(DWELL_S)  # a plan stays so long at least
            revision = run.cluster.plans[key]["revision"]
            gateways.rate_rps *= 2
            began_s = time.monotonic()
            if not await run.cluster.wait(partial(run.is_planned_after, key, revision), 60.0):
                raise RuntimeError(f"no new plan: see {run.operator.log}")
            took_s.append(time.monotonic() - began_s)
    run.figures["plan_after_step_s"] = round(max(took_s), 3)
    run.figures["plan_steps_s"] = [round(one, 3) for one in took_s]


async def run_phases(options: argparse.Namespace, server: KubeServer) -> dict[str, Any]:
    """All phases; the operator is stopped whatever happens."""
    async with AsyncExitStack() as stack:
        everybody, stepping = PlayedGateways(STEADY_RPS), PlayedGateways(STEADY_RPS)
        for gateways in (everybody, stepping):
            await gateways.start(stack)
        proxy = await stack.enter_async_context(FaultProxy(server))
        cluster = await stack.enter_async_context(PlayedCluster(server, everybody))
        log = options.out.parent / "operator.log"
        operator = OperatorProcess(server.user("admin", ("system:masters",), proxy.url), log)
        run = ScaleRun(options, server, proxy, cluster, operator)
        for number in range(options.namespaces):
            await cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": run.namespace(number)}})
        operator.start()
        stack.push_async_callback(asyncio.to_thread, operator.stop)
        say(f"operator {operator.pid}, log {log}")
        await operator.until_leader()
        await ready(run)
        await restart(run)
        await idle(run)
        await create_to_children(run)
        await plan_after_step(run, stepping)
        run.figures["polls_answered"] = everybody.asked
        run.figures["watch_restarts"] = await operator.metric("t2i_operator_watch_restarts_total")
        run.figures["log_lines"] = len(log.read_text().splitlines())
        return run.figures


def main() -> int:
    """Exit code 1 if the operator wrote what it should not have."""
    options = PARSER.parse()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    (options.out.parent / "operator.log").unlink(missing_ok=True)
    before = load_average(2)
    with tempfile.TemporaryDirectory() as folder, kube_server(Path(folder)) as server:
        figures = asyncio.run(run_phases(options, server))
    figures |= {"pools": options.pools, "namespaces": options.namespaces, "load_average_before": before}
    write_json(options.out, figures)
    if options.pools >= PARSER.get_default("pools"):  # a smaller run is no result
        write_page(
            options.results / "operator.md",
            Path(__file__).with_name("page.md.in"),
            **figures,
            machine=machine_facts(),
            phase_table=rows_table(PHASES, ({"name": name, **one} for name, one in figures["phases"].items())),
        )
    return 1 if figures["restart_writes"] or figures["idle_writes"] else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that everything is stopped on the way out
    sys.exit(main())
