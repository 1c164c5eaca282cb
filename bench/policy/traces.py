"""Traces, and policies run on them: what benches of policies share.

*Development* traces are those that constants were chosen on, ours and the rivals': the lineage's burst, and the first
arrivals of the files. *Held-out* ones are shapes that were never tuned on (`shapes`), and what a long file holds beyond
its first `SEEN` arrivals. Profile and truth are the lineage's (`t2i_simulator.lineage`), assumed and not measured.
Caches start empty.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.kit.places import EXAMPLES, example_spec
from bench.kit.prompts import EmbeddedPrompts
from bench.policy.shapes import SHAPES, arrivals
from t2i_api.pool import PoolSpec
from t2i_policy.policies import ServingPolicy
from t2i_policy.profile import LevelProfile
from t2i_simulator.bound import bounds_of
from t2i_simulator.engine import simulate
from t2i_simulator.outcomes import Outcomes
from t2i_simulator.profiles import build_groups
from t2i_simulator.report import Row, Setting, Timeline, measure, summarise, timeline
from t2i_simulator.similarity import PromptSimilarities
from t2i_simulator.traces import bursty_arrivals, read_arrivals
from t2i_simulator.true_loss import Truth
from t2i_simulator.workers import Group
from t2i_simulator.workload import TracePrompts, Workload, build_workload

SEEN = 6000  # arrivals of a file that earlier versions of this bench showed: later ones are held out
LOADS = (0.6, 0.9)  # of the files
LATER_LOAD = 0.7
EXACT_S = 4.2  # an exact image alone, as SLO multiples are meant
BURST = "burst"
BURST_MINUTES = 2.5  # the width of its bursts, half of the lineage's in half of its time
LADDERS = {"skips": "pool-sdxl-8", "hybrid": "pool-sdxl-8-hybrid"}


@dataclass(frozen=True, slots=True)
class Trace:
    """A named row of arrivals for a pool, and the SLO. `truth` holds the true losses where the profile is wrong."""

    name: str
    spec: PoolSpec
    arrived_s: Sequence[float]
    slo_s: float
    gateways: int = 1
    truth: LevelProfile | None = None
    truth_name: str = ""
    held_out: bool = False
    ladder: str = "skips"

    @property
    def multiple(self) -> int:
        """The SLO, in exact images."""
        return round(self.slo_s / EXACT_S)


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """One policy on one trace. The timeline is kept of the burst alone, the outcomes where they are asked for."""

    trace: Trace
    row: Row
    timeline: Timeline | None
    outcomes: Outcomes | None


@dataclass(frozen=True, slots=True)
class TraceRunner:
    """What all traces share: the prompts that arrivals ask for in turn, and the seed."""

    prompts: TracePrompts
    seed: int

    @classmethod
    def of(cls, prompts: EmbeddedPrompts, seed: int) -> "TraceRunner":
        """Prompts in their order. A trace that is longer than the list starts it again, and then no prompt finds an
        image of its own earlier round: a cycled prompt is as new as it was at first."""
        return cls(TracePrompts(PromptSimilarities(prompts.vectors), prompts.of_line, own_repeats=False), seed)

    def workload(self, trace: Trace) -> Workload:
        """The trace as a scenario with this SLO."""
        groups = build_groups(trace.spec, EXAMPLES, None)
        workload = build_workload(trace.spec, groups, trace.arrived_s, self.prompts, self.seed)
        target = replace(workload.scenario.target, slo_s=trace.slo_s)
        scenario = replace(workload.scenario, target=target, gateways=trace.gateways)
        return Workload(scenario, workload.prompt_of)

    def run(self, trace: Trace, workload: Workload, policy: ServingPolicy, bounded: bool = True) -> PolicyRun:
        """One run, and how far it is from the bound on what it met if `bounded`."""
        scenario = workload.scenario
        outcomes = simulate(scenario, policy)
        workers = sum(group.num_workers for group in scenario.groups)
        setting = Setting(trace.name, scenario.ladder, trace.slo_s, workers, workload.prompt_of)
        truth = trace.truth or scenario.profile
        measured = measure(outcomes, setting, Truth(truth, self.seed))
        row = summarise(policy.name, outcomes, setting, measured)
        if bounded:
            bounds = bounds_of(outcomes, replace(scenario, profile=truth), row.violations)
            quality = bounds.quality_percent
            row = replace(
                row,
                quality_gap=None if quality is None else quality - row.quality_percent,
                goodput_gap=bounds.goodput_percent - row.goodput_percent,
            )
        return PolicyRun(trace, row, timeline(outcomes, measured) if trace.name == BURST else None, outcomes)


def describe(run: PolicyRun) -> str:
    """A line of progress."""
    row, trace = run.row, run.trace
    setting = f"{trace.name}, {trace.ladder}, {trace.multiple}x, {trace.gateways} gateways"
    figures = f"violated {row.violation_percent:5.2f} %  quality {row.quality_percent:6.2f} %"
    return f"{setting:48} {row.policy:18} {figures}  goodput {row.goodput_percent:6.2f} %"


def full_rate_rps(groups: Sequence[Group], steps: int) -> float:
    """What these workers carry with everybody running so many steps, batches full."""
    return sum(g.num_workers * len(g.profile.step_s) / (steps * g.profile.step_s[-1]) for g in groups)


def k25_rate_rps(spec: PoolSpec) -> float:
    """What the pool carries with everybody at K=25: the unit of loads."""
    return full_rate_rps(build_groups(spec, EXAMPLES, None), spec.model.num_inference_steps - 25)


def trace_name(path: Path) -> str:
    return path.stem.removeprefix("arrivals-").removesuffix("-ms")


def rescaled(path: Path, rate_rps: float, first: int = 0, count: int = SEEN) -> list[float]:
    """The file's arrivals from `first` on, sped up or slowed down to this mean rate."""
    arrived_s = read_arrivals(path)[first : first + count]
    start_s, length_s = arrived_s[0], arrived_s[-1] - arrived_s[0]
    return [(at - start_s) / (rate_rps * length_s / (len(arrived_s) - 1)) for at in arrived_s]


def held_out_files(files: Sequence[Path], least: int = 500) -> list[Path]:
    """Files that hold so many arrivals beyond the first `SEEN`."""
    return [path for path in files if len(read_arrivals(path)) >= SEEN + least]


@dataclass(frozen=True, slots=True)
class TraceSet:
    """What traces are made of: files of arrivals, requests of each trace, minutes of the burst, a seed."""

    files: Sequence[Path]
    count: int
    minutes: float
    seed: int

    def make(self, ladder: str, multiple: int) -> Iterator[Trace]:
        """All traces for one ladder at one SLO, development first."""
        spec, slo_s = example_spec(LADDERS[ladder]), multiple * EXACT_S
        k25_rps = k25_rate_rps(spec)
        burst = bursty_arrivals(self.minutes, 8, self.seed, BURST_MINUTES * self.minutes / 60)
        yield Trace(BURST, spec, burst, slo_s, ladder=ladder)
        for path in self.files:
            for load in LOADS:
                arrived_s = rescaled(path, load * k25_rps, 0, self.count)
                yield Trace(f"{trace_name(path)} at {load}", spec, arrived_s, slo_s, ladder=ladder)
        for name, (shape, load) in SHAPES.items():
            arrived_s = arrivals(shape, load * k25_rps, self.count, self.seed)
            yield Trace(f"{name} at {load}", spec, arrived_s, slo_s, held_out=True, ladder=ladder)
        for path in held_out_files(self.files, self.count):
            arrived_s = rescaled(path, LATER_LOAD * k25_rps, SEEN, self.count)
            name = f"{trace_name(path)}, later, at {LATER_LOAD}"
            yield Trace(name, spec, arrived_s, slo_s, held_out=True, ladder=ladder)
