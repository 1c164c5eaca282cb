"""The ladder of before beside the profile's frontier, on the same arrivals, in virtual time.

Two pools. SDXL: eight workers; step times, losses and truth are the lineage's, assumed. The embedded model: two
workers; step times and losses are its shipped profile's, measured. Its arrivals are those of SDXL, faster by the ratio
of the pools' exact capacities, and its SLO is as many exact images. The ladders of before stand here as pools named
them. Each runs the same decisions, for the same prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from bench.kit.output import say
from bench.kit.places import EXAMPLES, example_spec
from bench.kit.prompts import embed_prompts, prompt_lines
from bench.policy.traces import BURST_MINUTES, EXACT_S, LADDERS, SEEN, full_rate_rps, rescaled
from t2i_api.levels import LevelPart
from t2i_api.pool import PoolSpec
from t2i_scenes import model_path
from t2i_simulator.engine import simulate
from t2i_simulator.profiles import build_groups
from t2i_simulator.report import Row, Setting, measure, summarise
from t2i_simulator.rivals.catalogue import OURS, policy_named
from t2i_simulator.similarity import PromptSimilarities
from t2i_simulator.traces import bursty_arrivals
from t2i_simulator.true_loss import Truth
from t2i_simulator.workers import Group
from t2i_simulator.workload import TracePrompts, build_workload

MULTIPLE = 5  # the SLO, in exact images
SDXL, EMBEDDED = "SDXL, assumed", "embedded model, measured"
NEW = "frontier"
SKIPS_OF_BEFORE = (0, 3, 6, 9)
SCHEDULES_OF_BEFORE = (8, 6, 4)
MAX_VIOLATED_PERCENT, MIN_QUALITY_PERCENT = 5.0, 95.0
LEAST, MOST, RESOLUTION = 0.3, 8.0, 0.05  # of the exact capacity
LOADS = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)  # of the exact capacity, for quality at equal violations
Arrivals = Callable[[float], list[float]]


@dataclass(frozen=True, slots=True)
class LadderPool:
    """A pool with one of its ladders. `old`: what the frontier is compared with."""

    model: str
    ladder: str
    spec: PoolSpec
    groups: tuple[Group, ...]
    slo_s: float
    speed: float

    @property
    def exact_rps(self) -> float:
        return full_rate_rps(self.groups, self.spec.base_steps)


@dataclass(frozen=True, slots=True)
class LadderRow:
    """One ladder on one trace. `load` of the exact capacity; None: the trace has its own."""

    model: str
    ladder: str
    trace: str
    load: float | None
    violation_percent: float
    quality_percent: float
    goodput_percent: float
    levels: dict[str, int]


@dataclass(frozen=True, slots=True)
class CarriedRow:
    """The largest loads with few violations, and with much quality too, of the exact capacity."""

    model: str
    ladder: str
    load: float
    good_load: float


def pools() -> list[LadderPool]:
    """Ladders of before first."""
    sdxl = {name: example_spec(file) for name, file in LADDERS.items()}
    hybrid = sdxl["hybrid"]
    sdxl[NEW] = without_levels(hybrid)
    own = model_path() / "profile.json"
    scenes = example_spec("pool-scenes")
    before = [LevelPart(skipped_steps=skip) for skip in SKIPS_OF_BEFORE]
    before += [LevelPart(num_inference_steps=steps) for steps in SCHEDULES_OF_BEFORE]
    embedded = {"skips and schedules": with_levels(scenes, before), NEW: without_levels(scenes)}
    found = [_pool(SDXL, name, spec, build_groups(spec, EXAMPLES, None), 1.0) for name, spec in sdxl.items()]
    exact_rps = found[0].exact_rps
    for name, spec in embedded.items():
        groups = build_groups(spec, EXAMPLES, own)
        speed = full_rate_rps(groups, spec.base_steps) / exact_rps
        found.append(_pool(EMBEDDED, name, spec, groups, speed))
    return found


def _pool(model: str, name: str, spec: PoolSpec, groups: tuple[Group, ...], speed: float) -> LadderPool:
    profile = groups[0].profile
    exact_s = profile.fixed_s + spec.base_steps * profile.step_s[0]
    return LadderPool(model, name, spec, groups, MULTIPLE * (EXACT_S if model == SDXL else exact_s), speed)


def without_levels(spec: PoolSpec) -> PoolSpec:
    """What its profile stands for."""
    return with_levels(spec, ())


def with_levels(spec: PoolSpec, levels: Sequence[LevelPart]) -> PoolSpec:
    return PoolSpec(**{**{name: getattr(spec, name) for name in PoolSpec.model_fields}, "levels": tuple(levels)})


@dataclass(frozen=True, slots=True)
class LadderBench:
    """What all runs share. `prompts` None: similarities of the lineage's histogram, and every latent is there."""

    prompts: TracePrompts | None
    seed: int
    minutes: float
    count: int
    files: Sequence[Path]

    @classmethod
    def of(cls, prompts: Path | None, seed: int, minutes: float, count: int, files: Sequence[Path]) -> "LadderBench":
        if prompts is None:
            return cls(None, seed, minutes, count, files)
        embedded = embed_prompts(prompt_lines(prompts))
        similarities = PromptSimilarities(embedded.vectors)
        return cls(TracePrompts(similarities, embedded.of_line, own_repeats=False), seed, minutes, count, files)

    def run(self, pool: LadderPool, trace: str, arrived_s: Sequence[float], load: float | None = None) -> LadderRow:
        row = self._row(pool, trace, arrived_s)
        say(
            f"{pool.model:26} {pool.ladder:20} {trace:14} {load or '':4} violated {row.violation_percent:5.2f} %  "
            f"quality {row.quality_percent:6.2f} %"
        )
        figures = (row.violation_percent, row.quality_percent, row.goodput_percent)
        return LadderRow(pool.model, pool.ladder, trace, load, *figures, dict(row.served_levels))

    def _row(self, pool: LadderPool, trace: str, arrived_s: Sequence[float]) -> Row:
        workload = build_workload(pool.spec, pool.groups, arrived_s, self.prompts, self.seed)
        target = replace(workload.scenario.target, slo_s=pool.slo_s)
        scenario = replace(workload.scenario, target=target)
        outcomes = simulate(scenario, policy_named(OURS))
        workers = sum(group.num_workers for group in pool.groups)
        setting = Setting(trace, scenario.ladder, pool.slo_s, workers, workload.prompt_of)
        measured = measure(outcomes, setting, Truth(scenario.profile, self.seed))
        return summarise(OURS, outcomes, setting, measured)

    def burst(self, pool: LadderPool) -> list[float]:
        """The lineage's burst, as fast as this pool."""
        width = BURST_MINUTES * self.minutes / 60
        return [at_s / pool.speed for at_s in bursty_arrivals(self.minutes, 8, self.seed, width)]

    def arrivals_at(self, pool: LadderPool, load: float) -> dict[str, list[float]]:
        """Each file's later arrivals, which nothing was tuned on, at a load of the exact capacity."""
        rate = load * pool.exact_rps
        return {path.stem: rescaled(path, rate, SEEN, self.count) for path in self.files}

    def carried(self, pool: LadderPool, arrivals: Arrivals) -> CarriedRow:
        """By halving, to within RESOLUTION."""
        rows: dict[float, Row] = {}

        def largest(is_good: Callable[[Row], bool]) -> float:
            low, high = 0, round((MOST - LEAST) / RESOLUTION) + 1
            while high - low > 1:
                middle = (low + high) // 2
                load = round(LEAST + middle * RESOLUTION, 4)
                if load not in rows:
                    rows[load] = self._row(pool, "carried", arrivals(load))
                low, high = (middle, high) if is_good(rows[load]) else (low, middle)
            return round(LEAST + low * RESOLUTION, 4)

        load = largest(lambda row: row.violation_percent <= MAX_VIOLATED_PERCENT)
        good = largest(
            lambda row: row.violation_percent <= MAX_VIOLATED_PERCENT and row.quality_percent >= MIN_QUALITY_PERCENT
        )
        say(f"{pool.model:26} {pool.ladder:20} carries {load:.2f}, with quality {good:.2f}")
        return CarriedRow(pool.model, pool.ladder, load, good)


@dataclass(frozen=True, slots=True)
class ComparedLadders:
    """Rows of every ladder, and the figures that sum them up by model."""

    rows: list[LadderRow]
    carried: list[CarriedRow]
    by_model: dict[str, dict[str, float]]


def compare(bench: LadderBench) -> ComparedLadders:
    rows: list[LadderRow] = []
    carried: list[CarriedRow] = []
    for pool in pools():
        rows.append(bench.run(pool, "burst", bench.burst(pool)))
        rows += [bench.run(pool, "poisson", _poisson(bench, pool, load), load) for load in LOADS]
        for trace in bench.arrivals_at(pool, 2.0):
            rows.append(bench.run(pool, trace, bench.arrivals_at(pool, 2.0)[trace], 2.0))
        carried.append(bench.carried(pool, partial(_poisson, bench, pool)))
    by_model = {model: _summary(model, rows, carried) for model in (SDXL, EMBEDDED)}
    return ComparedLadders(rows, carried, by_model)


def _poisson(bench: LadderBench, pool: LadderPool, load: float) -> list[float]:
    gaps = np.random.default_rng([bench.seed, 31]).exponential(1 / (load * pool.exact_rps), bench.count)
    found: list[float] = gaps.cumsum().tolist()
    return found


def _summary(model: str, rows: Sequence[LadderRow], carried: Sequence[CarriedRow]) -> dict[str, float]:
    """The frontier on the burst, and against the ladder that a pool had without naming one, and against the best."""
    burst = {row.ladder: row for row in rows if row.model == model and row.trace == "burst"}
    loads = {row.ladder: row for row in carried if row.model == model}
    before = [name for name in burst if name != NEW]
    first = before[0]
    best = min(_lost(burst[name]) for name in before)
    most = max(loads[name].good_load for name in before)
    return {
        "burst_violation_percent": burst[NEW].violation_percent,
        "burst_quality_percent": burst[NEW].quality_percent,
        "loss_ratio_to_old_ladder": _lost(burst[NEW]) / max(1e-9, _lost(burst[first])),
        "loss_ratio_to_best_old_ladder": _lost(burst[NEW]) / max(1e-9, best),
        "carried_ratio_at_95": loads[NEW].good_load / max(1e-9, loads[first].good_load),
        "carried_ratio_at_95_to_best_old_ladder": loads[NEW].good_load / max(1e-9, most),
    }


def _lost(row: LadderRow) -> float:
    return 100 - row.quality_percent
