"""The lineage's dispatch ablation (H8): `make bench-batching` -> build/bench/batching.json, bench/results/batching.md.

The AccuScale artifact compares its "Switch-batching" (route-and-batch: route uniformly at low load, fill the batch of
whoever waited longest at high load) with Proteus' batching on 8 SDXL workers. Both run whole batches, so they are
simulated here on workers that do: a batch once started takes steps x step_s[size - 1] and nobody joins it.

- proteus: random routing; a worker waits while one more request would still let the head of its queue meet the
  deadline (non-work-conserving), else it runs what it has
- route-and-batch: a free worker runs whatever waits. Low load: round robin. High load (most workers busy): to the
  worker whose unfilled batch has waited longest
- step-level: ours; batches change at every denoising step, `placement.choose_worker`, admission included

In all, a request still waiting at twice its SLO is dropped. All run at one level, K=0 at the low load and K=25 at the
high one, so that only dispatch differs. Arrivals are Poisson, at the lineage's two rates.
"""

import argparse
import heapq
import itertools
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from machine import write_result
from policy import EXAMPLES
from t2i_api.parse import parse_pool
from t2i_policy.level import Level
from t2i_policy.policies import Course, PromptAware
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_policy.request.placement import FILL_FROM_OCCUPANCY
from t2i_simulator.engine import simulate
from t2i_simulator.lineage import BASE_STEPS, STEP_ALONE_S, profiles
from t2i_simulator.outcomes import Fate
from t2i_simulator.profiles import build_groups
from t2i_simulator.rivals.common import decide_for
from t2i_simulator.workload import build_workload

WORKERS = 8
HOURS = 6.0
DROP_AT = 2.0  # SLOs
STEP_S = profiles()["sdxl-a10g"].step_s
CAP = len(STEP_S)
SLO_S = 5 * BASE_STEPS * STEP_ALONE_S
EXACT = Level(0, BASE_STEPS)
LOADS = (("low", 52.4, 0), ("high", 340.0, 25), ("above", 390.0, 25))  # queries a minute offered, K; 377 is the most
PUBLISHED = {  # queries a minute served, mean latency in s, violation ratio
    ("low", "proteus"): (52.4, 13.4, 0.035),
    ("low", "route-and-batch"): (47.6, 6.95, 0.04),
    ("high", "proteus"): (306.5, 17.75, 0.18),
    ("high", "route-and-batch"): (368.2, 17.1, 0.08),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """One dispatcher at one load: images a minute (late ones too), mean latency in seconds, share late or dropped."""

    load: str
    dispatch: str
    served_per_min: float
    mean_latency_s: float
    violation_ratio: float


@dataclass(slots=True)
class Worker:
    """When those that wait arrived, oldest first, and whether a batch may start."""

    waiting: deque[float] = field(default_factory=deque)
    free: bool = True


class WholeBatches:
    """A pool of such workers under one of the two dispatchers; `run` gives each request's latency, inf if dropped."""

    def __init__(self, steps: int, holding: bool, seed: int) -> None:
        self._steps = steps
        self._holding = holding  # proteus
        self._workers = [Worker() for _ in range(WORKERS)]
        self._turn = itertools.cycle(range(WORKERS))
        self._random = random.Random(seed)
        self._events: list[tuple[float, int, Worker, bool]] = []  # instant, number, worker, a batch ends
        self._numbers = itertools.count()
        self.latencies_s: list[float] = []

    def run(self, arrived_s: Sequence[float]) -> list[float]:
        """Until everybody is served or dropped."""
        for at_s in arrived_s:
            self._until(at_s)
            worker = self._route()
            worker.waiting.append(at_s)
            self._look(worker, at_s)
        self._until(float("inf"))
        return self.latencies_s

    def _route(self) -> Worker:
        workers = self._workers
        if self._holding:
            return self._random.choice(workers)
        if sum(not worker.free for worker in workers) < FILL_FROM_OCCUPANCY * WORKERS:
            return workers[next(self._turn)]
        unfilled = [worker for worker in workers if 0 < len(worker.waiting) < CAP]
        if unfilled:
            return min(unfilled, key=lambda worker: worker.waiting[0])
        return min(workers, key=lambda worker: len(worker.waiting))

    def _until(self, at_s: float) -> None:
        while self._events and self._events[0][0] <= at_s:
            now_s, _, worker, ends = heapq.heappop(self._events)
            worker.free = worker.free or ends
            self._look(worker, now_s)

    def _look(self, worker: Worker, now_s: float) -> None:
        """Start a batch, or set when to look again."""
        while worker.waiting and now_s - worker.waiting[0] > DROP_AT * SLO_S:
            worker.waiting.popleft()
            self.latencies_s.append(float("inf"))
        size = min(len(worker.waiting), CAP)
        if not worker.free or not size:
            return
        if self._holding and size < CAP:
            until_s = worker.waiting[0] + SLO_S - self._batch_s(size + 1)
            if now_s < until_s:
                heapq.heappush(self._events, (until_s, next(self._numbers), worker, False))
                return
        ends_s = now_s + self._batch_s(size)
        self.latencies_s += [ends_s - worker.waiting.popleft() for _ in range(size)]
        worker.free = False
        heapq.heappush(self._events, (ends_s, next(self._numbers), worker, True))

    def _batch_s(self, size: int) -> float:
        return self._steps * STEP_S[size - 1]


@dataclass(frozen=True, slots=True)
class OneLevel(PromptAware):
    """Everybody at one level, placed as ours places."""

    level: Level = EXACT

    def serve(self, rules: Rules, course: Course, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002 - the interface's
        """That level."""
        return decide_for(rules, arrival, pool, self.level)


def step_level(arrived_s: Sequence[float], skipped: int) -> list[float]:
    """Latencies with step-level batches; inf for refused and expired."""
    spec = parse_pool((EXAMPLES / "pool-sdxl-8.yaml").read_text()).spec
    workload = build_workload(spec, build_groups(spec, EXAMPLES, None), arrived_s, None)
    scenario = replace(workload.scenario, target=replace(workload.scenario.target, slo_s=SLO_S))
    outcomes = simulate(scenario, OneLevel(level=Level(skipped, BASE_STEPS)))
    ends = zip(outcomes.fates, outcomes.finished_s, outcomes.arrived_s, strict=True)
    return [end - start if fate is Fate.SERVED else float("inf") for fate, end, start in ends]


def figures(load: str, dispatch: str, latencies_s: Sequence[float]) -> Figures:
    """Means over all offered."""
    values = np.array(latencies_s)
    served = values[np.isfinite(values)]
    per_min = len(served) / (HOURS * 60)
    return Figures(load, dispatch, per_min, float(served.mean()), float((values > SLO_S).mean()))


def write_page(rows: Sequence[Figures], to: Path) -> None:
    """The table beside the published figures."""
    text = [
        "# Dispatch alone",
        "",
        f"`make bench-batching`: {WORKERS} workers with the lineage's A10G step times, SLO {SLO_S:g} s, {HOURS:g} h of "
        "Poisson arrivals, one level for all (K=0 at low load, K=25 at high). The published experiment's levels, "
        "arrivals and SLO are not stated; compare ratios between rows, not rows.",
        "",
        "| load | dispatch | served a minute | published | mean latency s | published | violated | published |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        told = PUBLISHED.get((row.load, row.dispatch))
        theirs = ("-", "-", "-") if told is None else (f"{told[0]:g}", f"{told[1]:g}", f"{told[2]:g}")
        text.append(
            f"| {row.load} | {row.dispatch} | {row.served_per_min:.1f} | {theirs[0]} | {row.mean_latency_s:.2f} | "
            f"{theirs[1]} | {row.violation_ratio:.3f} | {theirs[2]} |"
        )
    by_name = {(row.load, row.dispatch): row for row in rows}
    low = by_name["low", "route-and-batch"].mean_latency_s / by_name["low", "proteus"].mean_latency_s
    text += [
        "",
        f"Route-and-batch over Proteus at low load: {low:.2f}x latency (published 0.52x). At high load the published "
        "gain is 1.20x images a minute; here a saturated worker fills its batches under either rule, so they differ in "
        "latency and violations only. Above capacity nobody but step-level refuses: the others' queues grow.",
    ]
    to.write_text("\n".join(text) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/bench/batching.json"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = []
    for load, per_min, skipped in LOADS:
        gaps = np.random.default_rng(options.seed).exponential(60 / per_min, int(HOURS * 60 * per_min))
        arrived_s: list[float] = gaps.cumsum().tolist()
        steps = BASE_STEPS - skipped
        latencies_s = {
            "proteus": WholeBatches(steps, True, options.seed).run(arrived_s),
            "route-and-batch": WholeBatches(steps, False, options.seed).run(arrived_s),
            "step-level": step_level(arrived_s, skipped),
        }
        rows += [figures(load, name, of_one) for name, of_one in latencies_s.items()]
    write_page(rows, Path(__file__).parent / "results" / "batching.md")
    write_result(options.out, {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
