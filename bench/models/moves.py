"""Pools whose workers are loaded anew with the other model, beside pools whose workers stay: part of the page.

Traces that nobody tuned on, at a mean load, from several pools at the start. `RELOAD_S` is assumed, as
all else: seconds from an empty worker to a ready one, for both models.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.kit.places import example_spec
from bench.models.pools import WORKERS, ModelsTrace, groups_of, load_rps
from bench.policy.jobs import shared_runner
from bench.policy.shapes import SHAPES, Floats, arrivals
from bench.policy.traces import EXACT_S, LADDERS, SEEN, held_out_files, rescaled, trace_name
from t2i_policy.policies import PromptAware
from t2i_simulator.engine import simulate
from t2i_simulator.lineage import TURBO
from t2i_simulator.report import Setting, measure, summarise, timeline
from t2i_simulator.true_loss import Truth
from t2i_simulator.workload import build_workload

RELOAD_S = 40.0
LOAD = 1.5
STEP = "load step"
SHAPED = ("diurnal", "MMPP", "on/off", "flash crowd")
STARTS = (1, 4)  # distilled workers at the start
MULTIPLE = 3
INTERVALS = 60


def load_step(seconds: int, random: np.random.Generator) -> Floats:  # noqa: ARG001
    """A third of the time at half of the mean, a third at twice, and back."""
    third = 3 * np.arange(seconds) // seconds
    return np.where(third == 1, 2.0, 0.5)


@dataclass(frozen=True, slots=True)
class MovesJob:
    """Ours on one trace; `distilled` of the workers begin with the distilled model. `reload_s` 0: they stay."""

    trace: ModelsTrace
    distilled: int
    reload_s: float
    multiple: int = MULTIPLE

    def run(self) -> dict[str, Any]:
        runner = shared_runner()
        workload = build_workload(
            example_spec(LADDERS["skips"]), groups_of(self.distilled), self.trace.arrived_s, runner.prompts, runner.seed
        )
        slo_s = self.multiple * EXACT_S
        scenario = replace(workload.scenario, target=replace(workload.scenario.target, slo_s=slo_s))
        if self.reload_s:
            scenario = replace(scenario, reload_s={"": self.reload_s, TURBO: self.reload_s})
        outcomes = simulate(scenario, PromptAware())
        setting = Setting(self.trace.name, scenario.ladder, slo_s, WORKERS, workload.prompt_of)
        measured = measure(outcomes, setting, Truth(scenario.profile, runner.seed))
        row = summarise("moves" if self.reload_s else "stay", outcomes, setting, measured).to_document()
        course = timeline(outcomes, measured, INTERVALS)
        moves = [{"at_s": round(one.at_s, 1), "to": one.to_model or "sdxl"} for one in outcomes.made_moves]
        return {
            "distilled": self.distilled,
            "load": self.trace.load,
            "minutes": self.trace.arrived_s[-1] / 60,
            "made_moves": moves,
            "interval_s": course.interval_s,
            "offered_per_min": course.offered_per_min.tolist(),
            "quality_course": np.nan_to_num(course.quality_percent, nan=100.0).tolist(),
            **row,
        }


def moves_traces(options: Any) -> Iterator[ModelsTrace]:
    """Held out: shapes, and what a long file holds beyond what was seen."""
    count = round(60 * options.minutes * load_rps(LOAD))
    for name, shape in {STEP: load_step, **{name: SHAPES[name][0] for name in SHAPED}}.items():
        yield ModelsTrace(name, LOAD, arrivals(shape, load_rps(LOAD), count, options.seed))
    for path in held_out_files(options.arrivals, count // 2):
        yield ModelsTrace(f"{trace_name(path)}, later", LOAD, rescaled(path, load_rps(LOAD), SEEN, count))


def moves_jobs(options: Any) -> list[MovesJob]:
    return [
        MovesJob(trace, distilled, reload_s)
        for trace in moves_traces(options)
        for distilled in STARTS
        for reload_s in (0.0, RELOAD_S)
    ]
