"""Several models in one pool: `make bench-models` -> build/bench/models.json, bench/results/models.md and a plot.

Eight workers hold SDXL, a distilled model of four steps, or some each. On the same traces run

- ours, where only the backlogs move requests between models; ours with the joint plan's map, or with its prices;
- a cascade, and a router with a cascade, each with a discriminator that sees the truth and with one that errs; Proteus;
- pools of one model under ours.

Profile and truth are assumed (`t2i_simulator.lineage`), not measured. `shift_map_worth_points` is the mean goodput of
ours with the map minus ours without, over all settings; `joint_prices_worth_points` that with the plan's prices.
`plan_p99_ms` is how long a plan takes by the wall: 4 models on 4 device types each, 10 levels a model, 256 workers.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.kit.arguments import ARRIVALS, PROMPTS, BenchParser
from bench.kit.machine import load_average
from bench.kit.output import write_json
from bench.kit.places import BUILD, example_spec
from bench.kit.prompts import embed_prompts, prompt_lines
from bench.models.devices import devices_rows
from bench.models.moves import MovesJob, moves_jobs
from bench.models.page import write_report
from bench.models.plans import move_times, plan_times
from bench.models.pools import WORKERS, ModelsTrace, groups_of, load_rps
from bench.policy.jobs import in_processes, shared_runner
from bench.policy.shapes import SHAPES, arrivals
from bench.policy.traces import EXACT_S, LADDERS, TraceRunner, rescaled, trace_name
from t2i_policy.level import Level
from t2i_policy.policies import PromptAware, ServingPolicy
from t2i_policy.profile import LevelProfile
from t2i_simulator.engine import simulate
from t2i_simulator.lineage import TURBO
from t2i_simulator.outcomes import Fate, Outcomes
from t2i_simulator.report import Row, Setting, measure, summarise
from t2i_simulator.rivals.priced_cascade import PricedCascade
from t2i_simulator.rivals.several_models import JointMap, JointPrices, ModelCascade, several_models
from t2i_simulator.true_loss import Truth, discriminator
from t2i_simulator.workload import Workload, build_workload

ERRS = 0.5  # of an erring discriminator, in the logarithm: as much as losses differ by themselves
SHAPED = ("MMPP", "flash crowd")
QUICK = {"count": 60, "plans": 5, "multiples": [3], "loads": [0.9], "distilled": [0, 2, 8], "minutes": 1.0}
PARSER = BenchParser(__doc__, "models", quick=QUICK, page=True)
PARSER.add_input(PROMPTS)
PARSER.add_input(ARRIVALS, many=True)
PARSER.add_argument("--count", type=int, default=1000, help="requests of a trace")
PARSER.add_argument("--plans", type=int, default=200, help="plans that are timed")
PARSER.add_argument("--multiples", type=int, nargs="+", default=[3, 2], help="SLOs in exact images, loosest first")
PARSER.add_argument("--loads", type=float, nargs="+", default=[0.6, 0.9, 1.5, 3.0], help="of 8 SDXL workers at K=25")
PARSER.add_argument("--distilled", type=int, nargs="+", default=[0, 1, 2, 4, 8], help="workers of 8 that hold it")
PARSER.add_argument("--ladder", choices=LADDERS, default="skips", help="of SDXL")
PARSER.add_argument("--minutes", type=float, default=15.0, help="length of a trace on which workers move")
PARSER.add_argument("--real", type=Path, default=BUILD / "models-real.json", help="figures of a real pool, if any")
PARSER.add_argument("--seed", type=int, default=0)


@dataclass(frozen=True, slots=True)
class ModelsJob:
    """One policy on one trace, in a pool where `distilled` of the workers hold the distilled model."""

    trace: ModelsTrace
    distilled: int
    multiple: int
    policy: ServingPolicy
    ladder: str
    erring: bool = False

    def run(self) -> dict[str, object]:
        row, work = self._row(shared_runner())
        setting = {"distilled": self.distilled, "load": self.trace.load, "multiple": self.multiple}
        own = row.to_document()
        by_turbo = sum(count for name, count in row.served_levels.items() if name.startswith(f"{TURBO}:"))
        return setting | own | {"distilled_share": by_turbo / max(1, row.served), "work": work}

    def _row(self, runner: TraceRunner) -> tuple[Row, float]:
        """The row, and what an image took of the workers, in SDXL's steps."""
        workload, slo_s = self._workload(runner), self.multiple * EXACT_S
        scenario, prompts = workload.scenario, workload.prompt_of
        truth = Truth(scenario.profile, runner.seed)
        target = replace(scenario.target, slo_s=slo_s)
        sees = discriminator(truth, prompts, ERRS if self.erring else 0.0)
        scenario = replace(scenario, target=target, discriminator=sees)
        outcomes = simulate(scenario, self.policy)
        setting = Setting(self.trace.name, scenario.ladder, slo_s, WORKERS, prompts)
        name = f"{self.policy.name}, erring" if self.erring else self.policy.name
        return summarise(name, outcomes, setting, measure(outcomes, setting, truth)), work_of(
            outcomes, scenario.profile
        )

    def _workload(self, runner: TraceRunner) -> Workload:
        spec, groups = example_spec(LADDERS[self.ladder]), groups_of(self.distilled)
        return build_workload(spec, groups, self.trace.arrived_s, runner.prompts, runner.seed)


def work_of(outcomes: Outcomes, profile: LevelProfile) -> float:
    """SDXL's steps an image, the light runs of a cascade included."""
    light = profile.own_steps(Level(0, 1, model=TURBO))
    total = 0.0
    for level, steps in zip(outcomes.levels, outcomes.steps, strict=True):
        if level is not None:
            total += profile.own_steps(level) + light * max(0.0, steps - level.steps_run)
    return total / max(1, outcomes.fates.count(Fate.SERVED))


def real_pool(path: Path) -> dict[str, Any]:
    """What another benchmark measured on a real pool of two models; None where it did not run."""
    found = json.loads(path.read_text()) if path.is_file() else {}
    return {name: found.get(name) for name in ("lost", "images", "promise_error_points_max")}


def traces(options: Any) -> Iterator[ModelsTrace]:
    for load in options.loads:
        for path in options.arrivals:
            yield ModelsTrace(trace_name(path), load, rescaled(path, load_rps(load), 0, options.count))
        for name in SHAPED:
            shape = SHAPES[name][0]
            yield ModelsTrace(name, load, arrivals(shape, load_rps(load), options.count, options.seed))


def all_jobs(options: Any) -> Iterator[ModelsJob]:
    for trace, distilled, multiple in product(traces(options), options.distilled, options.multiples):
        rivals = several_models() if 0 < distilled < WORKERS else ()
        cascades = (PricedCascade(), PricedCascade(errs=ERRS)) if rivals else ()
        for policy in (PromptAware(), *rivals, *cascades):
            erring = isinstance(policy, PricedCascade) and policy.errs > 0
            job = ModelsJob(trace, distilled, multiple, policy, options.ladder, erring)
            yield job
            if isinstance(policy, ModelCascade):
                yield replace(job, erring=True)


def worth(rows: Sequence[dict[str, Any]], variant: ServingPolicy) -> float:
    """Points of goodput more than ours, the mean over all settings of pools with several models."""
    goodput = {(row["policy"], *_setting(row)): row["goodput_percent"] for row in rows}
    settings = [key for name, *key in goodput if name == variant.name]
    more = [goodput[(variant.name, *key)] - goodput[(PromptAware().name, *key)] for key in settings]
    return round(fmean(more), 3)


def _setting(row: dict[str, Any]) -> tuple[object, ...]:
    return row["distilled"], row["load"], row["multiple"], row["trace"]


def main() -> None:
    options = PARSER.parse()
    runner = TraceRunner.of(embed_prompts(prompt_lines(options.prompts)), options.seed)
    before = load_average()
    took = plan_times(options.plans)
    rows: list[dict[str, Any]] = in_processes(runner, ModelsJob.run, list(all_jobs(options)), described)
    moves: list[dict[str, Any]] = in_processes(
        runner,
        MovesJob.run,
        moves_jobs(options),
        "{distilled} of 8, {trace}: {policy} {goodput_percent:.2f}".format_map,
    )
    figures = {
        "load_average_1min": before,
        "plan_p99_ms": took["p99_wall_ms"],
        **real_pool(options.real),
        "move_times": move_times(options.plans),
        "moves": moves,
        "devices": devices_rows(runner, options),
        "plans": took,
        "shift_map_worth_points": worth(rows, JointMap()),
        "joint_prices_worth_points": worth(rows, JointPrices()),
        "rows": rows,
    }
    write_json(options.out, figures)
    write_report(figures, options.results)


def described(row: dict[str, Any]) -> str:
    return "{distilled} of 8, {load} at {multiple}x, {trace}: {policy} {goodput_percent:.2f}".format(**row)


if __name__ == "__main__":
    main()
