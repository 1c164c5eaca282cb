"""Every policy on the same traces: `make bench-policy` -> build/bench/policy.json, bench/results/policy.md and plots.

Traces: the bursty shape of the paper's lineage (3 bursts to about 390 queries/min on 8 SDXL workers, base 50) at SLOs
of 2, 3 and 5 times the time of an exact image, and the arrival files given by --arrivals, rescaled to shares of what
the pool carries with everybody at K=25. Prompts in order, embedded by a sentence encoder; caches start empty. Profile
and truth are the lineage's (`t2i_simulator.lineage`), assumed and not measured. Nothing here is tuned: policies run
with the defaults that they ship with.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from policy_oracle import knowledge_from
from policy_report import write_report
from t2i_api.parse import parse_pool
from t2i_api.pool import PoolSpec
from t2i_policy.policies import PromptAware, ServingPolicy
from t2i_policy.profile import LevelProfile
from t2i_simulator.embedding import SentenceEncoder, embed
from t2i_simulator.engine import simulate
from t2i_simulator.outcomes import Outcomes
from t2i_simulator.profiles import build_groups
from t2i_simulator.report import Row, Setting, Timeline, measure, summarise, timeline
from t2i_simulator.rivals.ablations import ablations
from t2i_simulator.rivals.catalogue import all_policies, policy_named
from t2i_simulator.rivals.oracle import Oracle
from t2i_simulator.similarity import PromptSimilarities, Vectors
from t2i_simulator.traces import bursty_arrivals, number_prompts, read_arrivals, read_prompts
from t2i_simulator.true_loss import Truth
from t2i_simulator.workers import Group
from t2i_simulator.workload import TracePrompts, Workload, build_workload

EXAMPLES = Path(__file__).parent.parent / "examples"
BURST_MINUTES = 120.0
MAX_ARRIVALS = 6000  # of a file: enough for percentiles, short enough for a bench
EXACT_S = 4.2  # an exact image alone, as SLO multiples are meant
LOADS = (0.6, 0.9, 1.2, 1.5)
MULTIPLES = (5, 2, 3)
FEWER = ("prompt-aware", "paper", "proteus", "pac", "sommelier", "nirvana", "clipper-ha")  # at the other SLOs
WRONG_BY = (0.5, 1.5)


@dataclass(frozen=True, slots=True)
class Trace:
    """A named row of arrivals for a pool, and the SLO. `scale` makes the true losses differ from the believed ones."""

    name: str
    spec: PoolSpec
    arrived_s: Sequence[float]
    slo_s: float
    scale: float = 1.0
    own_profile: Path | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """What all traces share."""

    prompts: TracePrompts
    seed: int

    def workload(self, trace: Trace) -> Workload:
        """The trace as a scenario with this SLO."""
        groups = build_groups(trace.spec, EXAMPLES, trace.own_profile)
        workload = build_workload(trace.spec, groups, trace.arrived_s, self.prompts, self.seed)
        target = replace(workload.scenario.target, slo_s=trace.slo_s)
        return Workload(replace(workload.scenario, target=target), workload.prompt_of)

    def run(self, trace: Trace, workload: Workload, policy: ServingPolicy) -> tuple[Row, Timeline, Outcomes]:
        """One policy."""
        scenario = workload.scenario
        outcomes = simulate(scenario, policy)
        workers = sum(group.num_workers for group in scenario.groups)
        setting = Setting(trace.name, scenario.ladder, trace.slo_s, workers, workload.prompt_of)
        measured = measure(outcomes, setting, Truth(scenario.profile, self.seed, scale=trace.scale))
        return summarise(policy.name, outcomes, setting, measured), timeline(outcomes, measured), outcomes

    def run_all(self, trace: Trace, policies: Sequence[ServingPolicy]) -> tuple[list[Row], dict[str, Timeline]]:
        """All policies, then the oracle, told what the first one met; every row with its distance to the oracle."""
        workload = self.workload(trace)
        rows, courses = [], {}
        met: Outcomes | None = None
        for policy in policies:
            row, course, outcomes = self.run(trace, workload, policy)
            met = met or outcomes
            rows.append(row)
            courses[policy.name] = course
            show(row)
        assert met is not None
        profile: LevelProfile = workload.scenario.profile
        oracle = Oracle(knowledge_from(met, workload.scenario), profile)
        row, courses[oracle.name], _ = self.run(trace, workload, oracle)
        show(row)
        gap = row.quality_percent
        return [replace(one, oracle_quality_gap=gap - one.quality_percent) for one in (*rows, row)], courses


def _show_embedded(done: int) -> None:
    print(f"\rembedded prompts: {done}", end="", file=sys.stderr)


def embedded(prompts_file: Path) -> tuple[Vectors, Sequence[int]]:
    """The file's prompts as vectors, each once, and which of them each line is."""
    unique, of_line = number_prompts(read_prompts(prompts_file))
    vectors = embed(SentenceEncoder(), unique, progress=_show_embedded)
    print(file=sys.stderr)
    return vectors, of_line


def show(row: Row) -> None:
    """Progress."""
    figures = f"violated {row.violation_percent:5.2f} %  quality {row.quality_percent:6.2f} %  p99 {row.p99_s:5.1f} s"
    print(f"{row.trace:32} {row.policy:22} {figures}", file=sys.stderr, flush=True)


def full_rate_rps(groups: Sequence[Group], steps: int) -> float:
    """What these workers carry with everybody running so many steps, batches full."""
    return sum(g.num_workers * len(g.profile.step_s) / (steps * g.profile.step_s[-1]) for g in groups)


def k25_rate_rps(spec: PoolSpec) -> float:
    """What the pool carries with everybody at K=25: the unit of loads."""
    return full_rate_rps(build_groups(spec, EXAMPLES, None), spec.model.num_inference_steps - 25)


def trace_name(path: Path) -> str:
    """Of a file of arrivals, in tables."""
    return path.stem.removeprefix("arrivals-").removesuffix("-ms")


def rescaled(path: Path, rate_rps: float) -> list[float]:
    """The file's arrivals, sped up or slowed down to this mean rate."""
    arrived_s = read_arrivals(path)[:MAX_ARRIVALS]
    return [at / (rate_rps * arrived_s[-1] / (len(arrived_s) - 1)) for at in arrived_s]


def traces(spec: PoolSpec, files: Sequence[Path], seed: int) -> Iterator[Trace]:
    """The burst at every SLO, then each file at every load."""
    burst = bursty_arrivals(BURST_MINUTES, 8, seed)
    for multiple in MULTIPLES:
        yield Trace(f"burst, SLO {multiple}x", spec, burst, multiple * EXACT_S)
    for path in files:
        for load in LOADS:
            arrived_s = rescaled(path, load * k25_rate_rps(spec))
            yield Trace(f"{trace_name(path)} at {load}", spec, arrived_s, 5 * EXACT_S)


def ablation_traces(hybrid: PoolSpec, scenes: PoolSpec, seed: int) -> Iterator[Trace]:
    """The burst on the hybrid SDXL pool, and a burst of the same shape on the embedded model's measured profile."""
    yield Trace("ablation: burst, SDXL hybrid", hybrid, bursty_arrivals(BURST_MINUTES, 8, seed), 5 * EXACT_S)
    own = Path(__file__).parent.parent / "scenes" / "t2i_scenes" / "model" / "profile.json"
    groups = build_groups(scenes, EXAMPLES, own)
    exact_rps = full_rate_rps(groups, 12)
    shape = bursty_arrivals(BURST_MINUTES, 8, seed)
    squeeze = 2.07 * exact_rps / (390 / 60)  # peaks at as many times the exact capacity as the lineage's
    exact_s = 12 * groups[0].profile.step_s[0]
    yield Trace("ablation: burst, scenes", scenes, [at / squeeze for at in shape], 5 * exact_s, own_profile=own)


def run(files: Sequence[Path], prompts_file: Path, seed: int, quick: bool) -> dict[str, list[dict[str, object]]]:
    """Everything; writes the report's plots on the way."""
    vectors, of_line = embedded(prompts_file)
    bench = Bench(TracePrompts(PromptSimilarities(vectors), of_line, own_repeats=False), seed)
    spec, hybrid, scenes = (
        parse_pool((EXAMPLES / name).read_text()).spec
        for name in ("pool-sdxl-8.yaml", "pool-sdxl-8-hybrid.yaml", "pool-scenes.yaml")
    )
    rows: list[Row] = []
    courses: dict[str, Timeline] = {}
    for trace in traces(spec, files, seed):
        tight = trace.name.startswith("burst") and trace.slo_s < max(MULTIPLES) * EXACT_S
        found, course = bench.run_all(trace, [policy_named(name) for name in FEWER] if tight else all_policies())
        rows += found
        if trace.name == "burst, SLO 5x":
            courses = course
        if quick:
            break
    parts: list[ServingPolicy] = [PromptAware(), *ablations()]
    ablated = [row for one in ablation_traces(hybrid, scenes, seed) for row in bench.run_all(one, parts)[0]]
    wrong = []
    burst = bursty_arrivals(BURST_MINUTES, 8, seed)
    for scale in (1.0, *WRONG_BY):
        trace = Trace(f"burst, true losses x {scale:g}", spec, burst, 5 * EXACT_S, scale)
        chosen: list[ServingPolicy] = [policy_named(name) for name in ("prompt-aware", "paper", "nirvana", "proteus")]
        wrong += bench.run_all(trace, chosen)[0]
    tables = {"policies": rows, "ablations": ablated, "sensitivity": wrong}
    similarity = np.array([float(one.max()) for one in _nearest_before(vectors, of_line)])
    write_report(tables, courses, similarity, Path(__file__).parent / "results")
    return {name: [row.to_document() for row in table] for name, table in tables.items()}


def _nearest_before(
    vectors: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]", of_line: Sequence[int]
) -> Iterator["np.ndarray[tuple[int, ...], np.dtype[np.float32]]"]:
    """Cosines of each line's prompt to those of the lines before it."""
    in_order = vectors[np.asarray(of_line)]
    for line in range(1, len(in_order)):
        yield in_order[:line] @ in_order[line]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/bench/policy.json"))
    parser.add_argument("--prompts", type=Path, required=True, help="one prompt a line")
    parser.add_argument("--arrivals", type=Path, action="append", default=[], help="one time in ms a line; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="the first trace only")
    arguments = parser.parse_args()
    tables = run(arguments.arrivals, arguments.prompts, arguments.seed, arguments.quick)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    rows = [dict(row, table=name) for name, table in tables.items() for row in table]
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"written: {arguments.out}, bench/results/policy.md")


if __name__ == "__main__":
    main()
