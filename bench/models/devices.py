"""Unlike devices in a pool of two models, and the death of a fast one: part of the page.

Two fast workers and six slow ones have the capacity of eight equal ones, and one fast worker that of two equal ones. At
half of the time one fast worker dies for good, or two equal ones do. One worker of each pool holds the distilled model,
a slow one where there are any.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench.kit.places import example_spec
from bench.models.moves import RELOAD_S
from bench.models.pools import WORKERS, load_rps
from bench.policy.jobs import in_processes, shared_runner
from bench.policy.shapes import Floats, arrivals
from bench.policy.traces import EXACT_S, LADDERS, TraceRunner
from t2i_policy.level import Level
from t2i_policy.policies import PromptAware
from t2i_simulator.engine import simulate
from t2i_simulator.faults import Fault
from t2i_simulator.lineage import TURBO, profiles
from t2i_simulator.outcomes import Outcomes
from t2i_simulator.report import MeasuredRun, Setting, measure, timeline
from t2i_simulator.true_loss import Truth
from t2i_simulator.workers import Group
from t2i_simulator.workload import build_workload

FAST, SLOW = 2.0, 2 / 3  # times as fast as an equal one
LOAD = 0.9
MULTIPLE = 3
NEAR_FROM = 0.85  # similarity to the nearest cached prompt
WINDOW_S = 20.0
RECOVERED = 0.5  # points of quality below that of the end
EQUAL, UNLIKE = "8 equal", "2 fast, 6 slow"


def devices_of(pool: str) -> tuple[tuple[Group, ...], tuple[str, ...]]:
    """The groups, and who dies."""
    if pool == EQUAL:
        profile = _speed(1.0)
        return (Group("sdxl", 7, profile), Group(TURBO, 1, profile, TURBO)), ("sdxl-0", "sdxl-1")
    fast, slow = _speed(FAST), _speed(SLOW)
    return (Group("slow", 5, slow), Group("fast", 2, fast), Group("slow-turbo", 1, slow, TURBO)), ("fast-0",)


def _speed(times: float) -> Any:
    profile = profiles()["sdxl-turbo-a10g"]
    sections = tuple(
        one._replace(step_s=tuple(s / times for s in one.step_s), fixed_s=one.fixed_s / times) for one in profile.models
    )
    return replace(profile, step_s=tuple(s / times for s in profile.step_s), models=sections)


def even(seconds: int, random: np.random.Generator) -> Floats:  # noqa: ARG001
    """The same rate at all times."""
    return np.ones(seconds)


@dataclass(frozen=True, slots=True)
class DevicesJob:
    """One pool on one trace. `reload_s` 0: its workers stay."""

    pool: str
    arrived_s: Sequence[float]
    reload_s: float

    def run(self) -> dict[str, Any]:
        runner, (groups, dying) = shared_runner(), devices_of(self.pool)
        died_s = self.arrived_s[-1] / 2
        faults = tuple(Fault(name, died_s) for name in dying)
        spec = example_spec(LADDERS["skips"])
        workload = build_workload(spec, groups, self.arrived_s, runner.prompts, runner.seed, faults)
        target = replace(workload.scenario.target, slo_s=MULTIPLE * EXACT_S)
        moves = {"": self.reload_s, TURBO: self.reload_s} if self.reload_s else {}
        scenario = replace(workload.scenario, target=target, reload_s=moves)
        outcomes = simulate(scenario, PromptAware())
        setting = Setting("even", scenario.ladder, target.slo_s, WORKERS, workload.prompt_of)
        measured = measure(outcomes, setting, Truth(scenario.profile, runner.seed))
        course = timeline(outcomes, measured, round(self.arrived_s[-1] / WINDOW_S))
        return {
            "pool": self.pool,
            "reload_s": self.reload_s,
            "made_moves": [
                {"at_s": round(one.at_s - died_s, 1), "group": one.group, "to": one.to_model or "sdxl"}
                for one in outcomes.made_moves
            ],
            "late_until_s": late_until_s(outcomes, measured, died_s),
            "recovered_s": recovered_s(course.quality_percent, course.interval_s, died_s),
            "interval_s": course.interval_s,
            "died_s": died_s,
            "quality_course": np.nan_to_num(course.quality_percent, nan=100.0).tolist(),
            "served": served_whom(outcomes, measured, died_s),
        }


def late_until_s(outcomes: Outcomes, measured: MeasuredRun, died_s: float) -> float:
    """Seconds from the death to the last arrival whose image then was late or failed, within a first minute without
    any of those."""
    last_s = died_s
    for at_s, violated in zip(outcomes.arrived_s, measured.violated, strict=True):
        if violated and died_s - MULTIPLE * EXACT_S <= at_s <= last_s + 60:
            last_s = max(last_s, at_s)
    return last_s - died_s


def recovered_s(quality: Floats, interval_s: float, died_s: float) -> float:
    """Seconds from the death until quality is, in a window, what it is on average at the end."""
    first = int(died_s / interval_s) + 1
    after = quality[first:-1]
    usual = float(np.nanmean(after[len(after) // 2 :]))
    good = np.flatnonzero(after >= usual - RECOVERED)
    return float((first + good[0] + 1) * interval_s - died_s) if len(good) else float("inf")


def served_whom(outcomes: Outcomes, measured: MeasuredRun, died_s: float) -> list[dict[str, Any]]:
    """Before and after the death, for prompts near a cached one and far from all: who drew them, and their loss."""
    found = []
    for when in ("before", "after"):
        for whom in ("near", "far"):
            numbers = [
                number
                for number, at_s in enumerate(outcomes.arrived_s)
                if (at_s >= died_s) == (when == "after")
                and (outcomes.similarity[number] >= NEAR_FROM) == (whom == "near")
            ]
            kinds = [_kind(outcomes.levels[number]) for number in numbers]
            shares = {kind: 100 * kinds.count(kind) / max(1, len(kinds)) for kind in ("exact", "bent", "distilled")}
            lost = measured.loss[numbers]
            found.append(
                {
                    "when": when,
                    "whom": whom,
                    "requests": len(numbers),
                    **shares,
                    "violated": 100 * float(measured.violated[numbers].mean()),
                    "quality": 100 * (1 - float(np.nanmean(lost))),
                }
            )
    return found


def _kind(level: Level | None) -> str:
    if level is None:
        return "none"
    if level.model:
        return "distilled"
    return "exact" if not level.needs_latent else "bent"


def devices_rows(runner: TraceRunner, options: Any) -> list[dict[str, Any]]:
    arrived_s = arrivals(even, load_rps(LOAD), round(20 * options.minutes * load_rps(LOAD)), options.seed)
    work = [DevicesJob(pool, arrived_s, reload_s) for pool in (EQUAL, UNLIKE) for reload_s in (0.0, RELOAD_S)]
    return in_processes(runner, DevicesJob.run, work, "{pool}: late for {late_until_s:.0f} s".format_map)
