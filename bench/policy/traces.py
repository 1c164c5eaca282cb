"""Traces, and policies run on them: what benches of policies share.

Profile and truth are the lineage's (`t2i_simulator.lineage`), assumed and not measured. Nothing here is tuned: policies
run with the defaults that they ship with, from empty caches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.kit.output import say
from bench.kit.places import EXAMPLES, ROOT, example_spec
from bench.kit.prompts import EmbeddedPrompts
from t2i_api.pool import PoolSpec
from t2i_policy.policies import ServingPolicy
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

MAX_ARRIVALS = 6000  # of a file: enough for percentiles, short enough for a bench
EXACT_S = 4.2  # an exact image alone, as SLO multiples are meant
LOADS = (0.6, 0.9, 1.2, 1.5)
MULTIPLES = (5, 2, 3)
SCENES_PROFILE = ROOT / "scenes" / "t2i_scenes" / "model" / "profile.json"


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
class PolicyRun:
    row: Row
    timeline: Timeline
    outcomes: Outcomes


@dataclass(frozen=True, slots=True)
class TraceRunner:
    """What all traces share: the prompts that arrivals ask for in turn, and the seed."""

    prompts: TracePrompts
    seed: int

    @classmethod
    def of(cls, prompts: EmbeddedPrompts, seed: int) -> "TraceRunner":
        """Prompts in their order, from the first one again after the last."""
        return cls(TracePrompts(PromptSimilarities(prompts.vectors), prompts.of_line, own_repeats=False), seed)

    def workload(self, trace: Trace) -> Workload:
        """The trace as a scenario with this SLO."""
        groups = build_groups(trace.spec, EXAMPLES, trace.own_profile)
        workload = build_workload(trace.spec, groups, trace.arrived_s, self.prompts, self.seed)
        target = replace(workload.scenario.target, slo_s=trace.slo_s)
        return Workload(replace(workload.scenario, target=target), workload.prompt_of)

    def run(self, trace: Trace, workload: Workload, policy: ServingPolicy) -> PolicyRun:
        scenario = workload.scenario
        outcomes = simulate(scenario, policy)
        workers = sum(group.num_workers for group in scenario.groups)
        setting = Setting(trace.name, scenario.ladder, trace.slo_s, workers, workload.prompt_of)
        measured = measure(outcomes, setting, Truth(scenario.profile, self.seed, scale=trace.scale))
        row = summarise(policy.name, outcomes, setting, measured)
        figures = (
            f"violated {row.violation_percent:5.2f} %  quality {row.quality_percent:6.2f} %  p99 {row.p99_s:5.1f} s"
        )
        say(f"{row.trace:32} {row.policy:22} {figures}")
        bounds = bounds_of(outcomes, scenario, row.violations)
        quality = bounds.quality_percent
        gaps = replace(
            row,
            quality_gap=None if quality is None else quality - row.quality_percent,
            goodput_gap=bounds.goodput_percent - row.goodput_percent,
        )
        return PolicyRun(gaps, timeline(outcomes, measured), outcomes)

    def run_all(self, trace: Trace, policies: Sequence[ServingPolicy]) -> list[PolicyRun]:
        workload = self.workload(trace)
        return [self.run(trace, workload, policy) for policy in policies]


def full_rate_rps(groups: Sequence[Group], steps: int) -> float:
    """What these workers carry with everybody running so many steps, batches full."""
    return sum(g.num_workers * len(g.profile.step_s) / (steps * g.profile.step_s[-1]) for g in groups)


def k25_rate_rps(spec: PoolSpec) -> float:
    """What the pool carries with everybody at K=25: the unit of loads."""
    return full_rate_rps(build_groups(spec, EXAMPLES, None), spec.model.num_inference_steps - 25)


def trace_name(path: Path) -> str:
    return path.stem.removeprefix("arrivals-").removesuffix("-ms")


def rescaled(path: Path, rate_rps: float) -> list[float]:
    """The file's arrivals, sped up or slowed down to this mean rate."""
    arrived_s = read_arrivals(path)[:MAX_ARRIVALS]
    return [at / (rate_rps * arrived_s[-1] / (len(arrived_s) - 1)) for at in arrived_s]


def main_traces(spec: PoolSpec, files: Sequence[Path], seed: int, minutes: float) -> Iterator[Trace]:
    """The burst at every SLO, then each file at every load."""
    burst = bursty_arrivals(minutes, 8, seed)
    for multiple in MULTIPLES:
        yield Trace(f"burst, SLO {multiple}x", spec, burst, multiple * EXACT_S)
    for path in files:
        for load in LOADS:
            arrived_s = rescaled(path, load * k25_rate_rps(spec))
            yield Trace(f"{trace_name(path)} at {load}", spec, arrived_s, 5 * EXACT_S)


def ablation_traces(seed: int, minutes: float) -> Iterator[Trace]:
    """The burst on the hybrid SDXL pool, and a burst of the same shape on the embedded model's measured profile."""
    hybrid, scenes = example_spec("pool-sdxl-8-hybrid"), example_spec("pool-scenes")
    burst = bursty_arrivals(minutes, 8, seed)
    yield Trace("ablation: burst, SDXL hybrid", hybrid, burst, 5 * EXACT_S)
    groups = build_groups(scenes, EXAMPLES, SCENES_PROFILE)
    squeeze = (
        2.07 * full_rate_rps(groups, 12) / (390 / 60)
    )  # peaks at as many times the exact capacity as the lineage's
    exact_s = 12 * groups[0].profile.step_s[0]
    arrived_s = [at / squeeze for at in burst]
    yield Trace("ablation: burst, scenes", scenes, arrived_s, 5 * exact_s, own_profile=SCENES_PROFILE)


def sensitivity_traces(spec: PoolSpec, seed: int, minutes: float) -> Iterator[Trace]:
    """The burst, where the true losses are as believed, half of that, and half as much again."""
    burst = bursty_arrivals(minutes, 8, seed)
    for scale in (1.0, 0.5, 1.5):
        yield Trace(f"burst, true losses x {scale:g}", spec, burst, 5 * EXACT_S, scale)
