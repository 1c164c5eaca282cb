"""The lineage's dispatch ablation (H8): `make bench-batching` -> build/bench/batching.json, bench/results/batching.md.

The AccuScale artifact compares its "Switch-batching" (route-and-batch: route uniformly at low load, fill the batch of
whoever waited longest at high load) with Proteus' batching on 8 SDXL workers. Both run whole batches
(`whole_batches.py`). Beside them step-level batches, which is ours: they change at every denoising step, with
`placement.choose_worker` and admission.

In all, a request still waiting at twice its SLO is dropped. All run at one level, K=0 at the low load and K=25 at the
high one, so that only dispatch differs. Arrivals are Poisson, at the lineage's two rates.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from bench.batching.whole_batches import NUM_WORKERS, SLO_S, WholeBatches
from bench.kit.arguments import BenchParser
from bench.kit.output import table, write_json, write_page
from bench.kit.places import EXAMPLES, example_spec
from t2i_policy.level import Level
from t2i_policy.planning.plan import Plan
from t2i_policy.policies import PromptAware
from t2i_policy.pool_view import PoolView
from t2i_policy.request.decide import Arrival, Decided, Rules
from t2i_simulator.engine import simulate
from t2i_simulator.lineage import BASE_STEPS
from t2i_simulator.outcomes import Fate
from t2i_simulator.profiles import build_groups
from t2i_simulator.rivals.common import decide_for
from t2i_simulator.workload import build_workload

LOADS = (("low", 52.4, 0), ("high", 340.0, 25), ("above", 390.0, 25))  # queries a minute offered, K; 377 is the most
PUBLISHED = {  # queries a minute served, mean latency in s, violation ratio
    ("low", "proteus"): (52.4, 13.4, 0.035),
    ("low", "route-and-batch"): (47.6, 6.95, 0.04),
    ("high", "proteus"): (306.5, 17.75, 0.18),
    ("high", "route-and-batch"): (368.2, 17.1, 0.08),
}
EXACT = Level(0, BASE_STEPS)
HEAD = ["load", "dispatch", "served a minute", "published", "mean latency s", "published", "violated", "published"]
PARSER = BenchParser(__doc__, "batching", quick={"hours": 0.2}, page=True)
PARSER.add_argument("--hours", type=float, default=6.0, help="of arrivals at each load")
PARSER.add_argument("--seed", type=int, default=0)


@dataclass(frozen=True, slots=True)
class DispatchFigures:
    """One dispatcher at one load: images a minute (late ones too), mean latency in seconds, share late or dropped."""

    load: str
    dispatch: str
    served_per_min: float
    mean_latency_s: float
    violation_ratio: float

    @property
    def cells(self) -> list[str]:
        told = PUBLISHED.get((self.load, self.dispatch))
        theirs = ("-", "-", "-") if told is None else [f"{value:g}" for value in told]
        ours = (f"{self.served_per_min:.1f}", f"{self.mean_latency_s:.2f}", f"{self.violation_ratio:.3f}")
        return [self.load, self.dispatch, *(cell for pair in zip(ours, theirs, strict=True) for cell in pair)]


@dataclass(frozen=True, slots=True)
class OneLevel(PromptAware):
    """Everybody at one level, placed as ours places."""

    level: Level = EXACT

    def serve(self, rules: Rules, plan: Plan, arrival: Arrival, pool: PoolView) -> Decided:  # noqa: ARG002 - the interface's
        return decide_for(rules, arrival, pool, self.level)


def step_level(arrived_s: Sequence[float], skipped: int) -> list[float]:
    """Latencies with step-level batches; inf for refused and expired."""
    spec = example_spec("pool-sdxl-8")
    workload = build_workload(spec, build_groups(spec, EXAMPLES, None), arrived_s, None)
    scenario = replace(workload.scenario, target=replace(workload.scenario.target, slo_s=SLO_S))
    outcomes = simulate(scenario, OneLevel(level=Level(skipped, BASE_STEPS)))
    ends = zip(outcomes.fates, outcomes.finished_s, outcomes.arrived_s, strict=True)
    return [end - start if fate is Fate.SERVED else float("inf") for fate, end, start in ends]


def measure(load: str, per_min: float, skipped: int, hours: float, seed: int) -> list[DispatchFigures]:
    gaps = np.random.default_rng(seed).exponential(60 / per_min, int(hours * 60 * per_min))
    arrived_s: list[float] = gaps.cumsum().tolist()
    steps = BASE_STEPS - skipped
    latencies_s = {
        "proteus": WholeBatches(steps, True, seed).run(arrived_s),
        "route-and-batch": WholeBatches(steps, False, seed).run(arrived_s),
        "step-level": step_level(arrived_s, skipped),
    }
    found = []
    for dispatch, of_one in latencies_s.items():
        values = np.array(of_one)
        served = values[np.isfinite(values)]
        late = float((values > SLO_S).mean())
        found.append(DispatchFigures(load, dispatch, len(served) / (hours * 60), float(served.mean()), late))
    return found


def main() -> None:
    options = PARSER.parse()
    rows = [row for load in LOADS for row in measure(*load, hours=options.hours, seed=options.seed)]
    low_s = {row.dispatch: row.mean_latency_s for row in rows if row.load == "low"}
    write_page(
        options.results / "batching.md",
        Path(__file__).with_name("page.md.in"),
        workers=NUM_WORKERS,
        slo_s=SLO_S,
        hours=options.hours,
        table=table(HEAD, (row.cells for row in rows)),
        low_ratio=low_s["route-and-batch"] / low_s["proteus"],
    )
    write_json(options.out, {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
