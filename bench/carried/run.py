"""Load that each policy carries: `make bench-carried` -> build/bench/carried.json, bench/results/carried.md and a plot.

For a trace and a policy: the largest load with at most 5 % violations, and the largest with at least 95 % quality too.
Each is found by halving an interval of loads down to `RESOLUTION`. Loads are shares of what the pool carries with
everybody at K=25. And the images in time at twice that capacity. All else is as in `make bench-policy`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import groupby, product
from pathlib import Path

import numpy as np

from bench.kit.arguments import ARRIVALS, PROMPTS, BenchParser
from bench.kit.machine import machine_line
from bench.kit.output import rows_table, write_json, write_page
from bench.kit.places import example_spec
from bench.kit.plots import save_plot, subplots
from bench.kit.prompts import embed_prompts, prompt_lines
from bench.policy.jobs import in_processes, shared_runner
from bench.policy.traces import EXACT_S, Trace, TraceRunner, k25_rate_rps, rescaled, trace_name
from t2i_simulator.report import Row
from t2i_simulator.rivals.catalogue import policy_named

EXACT_ONLY = "clipper-ha"
POLICIES = ("prompt-aware", "ours-deadline-only", "paper", "paper-tuned", "paper-tuned-calm", "proteus-tuned-calm",
            "pac-tuned-calm", "infaas-tuned", "nirvana", EXACT_ONLY)  # fmt: skip
MAX_VIOLATED_PERCENT, MIN_QUALITY_PERCENT = 5.0, 95.0
LEAST, MOST, RESOLUTION = 0.2, 1.4, 0.01  # of the capacity at K=25
OVERLOAD = 2.0
COLUMNS = {
    "policy": "{policy}",
    "load at 5 % violated": "{load:.2f}",
    "over K=0": "{over_exact:.2f}",
    "quality there, %": "{quality_percent:.2f}",
    "load at 5 % and quality >= 95 %": "{good_load:.2f}",
    "in time at 2x": "{in_time_at_2x:.3f}",
}
PARSER = BenchParser(__doc__, "carried", quick={"arrivals_each": 100}, page=True)
PARSER.add_input(PROMPTS)
PARSER.add_input(ARRIVALS, many=True)
PARSER.add_argument("--arrivals-each", type=int, default=4000, help="arrivals of a run")
PARSER.add_argument("--seed", type=int, default=0)


@dataclass(frozen=True, slots=True)
class CarriedLoad:
    """One policy on one trace. Loads are of the capacity at K=25; `over_exact` of what K=0 carries on this trace."""

    trace: str
    policy: str
    load: float
    quality_percent: float
    good_load: float
    in_time_at_2x: float
    over_exact: float = 0.0


@dataclass(frozen=True, slots=True)
class ScaledTrace:
    """A trace that can be had at any mean rate (requests/s)."""

    name: str
    arrivals: Callable[[float], list[float]]


@dataclass(frozen=True, slots=True)
class LoadSearch:
    """One policy on one trace at any load."""

    trace: ScaledTrace
    policy: str

    def run(self) -> CarriedLoad:
        rows: dict[float, Row] = {}
        load = self._largest(rows, lambda row: row.violation_percent <= MAX_VIOLATED_PERCENT)
        good = self._largest(
            rows,
            lambda row: row.violation_percent <= MAX_VIOLATED_PERCENT and row.quality_percent >= MIN_QUALITY_PERCENT,
        )
        in_time = (100 - self._row(rows, OVERLOAD).violation_percent) / 100 * OVERLOAD
        quality = rows[load].quality_percent if load else 0.0
        return CarriedLoad(self.trace.name, self.policy, load, quality, good, in_time)

    def _largest(self, rows: dict[float, Row], is_good: Callable[[Row], bool]) -> float:
        """The largest load, to within RESOLUTION, at which it is; 0 if it is not even at LEAST."""
        low, high = 0, round((MOST - LEAST) / RESOLUTION) + 1  # in steps of RESOLUTION above LEAST
        if not is_good(self._row(rows, LEAST)):
            return 0.0
        while high - low > 1:
            middle = (low + high) // 2
            if is_good(self._row(rows, round(LEAST + middle * RESOLUTION, 4))):
                low = middle
            else:
                high = middle
        return round(LEAST + low * RESOLUTION, 4)

    def _row(self, rows: dict[float, Row], load: float) -> Row:
        if load not in rows:
            spec, runner = example_spec("pool-sdxl-8"), shared_runner()
            trace = Trace(self.trace.name, spec, self.trace.arrivals(load * k25_rate_rps(spec)), 5 * EXACT_S)
            rows[load] = runner.run(trace, runner.workload(trace), policy_named(self.policy), bounded=False).row
        return rows[load]


def poisson(seed: int, count: int, rate_rps: float) -> list[float]:
    gaps: list[float] = np.random.default_rng(seed).exponential(1 / rate_rps, count).cumsum().tolist()
    return gaps


def first_of(path: Path, count: int, rate_rps: float) -> list[float]:
    return rescaled(path, rate_rps, 0, count)


def plot(by_trace: Sequence[Sequence[CarriedLoad]], to: Path) -> None:
    figure, axes = subplots(figsize=(11, 4.5))
    places, width = np.arange(len(by_trace)), 0.8 / len(POLICIES)
    for number, policy in enumerate(POLICIES):
        at = places + number * width
        bars = axes.bar(at, [rows[number].load for rows in by_trace], width, alpha=0.45)
        colour = bars[0].get_facecolor()[:3]
        axes.bar(at, [rows[number].good_load for rows in by_trace], width, color=colour, label=policy)
    axes.set_xticks(places + 0.4 - width / 2, [rows[0].trace for rows in by_trace])
    axes.set_ylabel("load at 5 % violations (pale),\nand with quality >= 95 % (full)")
    axes.legend(fontsize=8, ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    save_plot(figure, to)


def main() -> None:
    options = PARSER.parse()
    prompts, count = embed_prompts(prompt_lines(options.prompts)), options.arrivals_each
    traces = [ScaledTrace("poisson", partial(poisson, options.seed, count))]
    traces += [ScaledTrace(trace_name(path), partial(first_of, path, count)) for path in options.arrivals]
    searches = [LoadSearch(trace, policy) for trace, policy in product(traces, POLICIES)]
    found = in_processes(TraceRunner.of(prompts, options.seed), LoadSearch.run, searches, described)
    by_trace = [beside_exact(list(rows)) for _, rows in groupby(found, key=lambda one: one.trace)]
    tables = [f"## {rows[0].trace}\n\n{rows_table(COLUMNS, map(asdict, rows))}" for rows in by_trace]
    write_page(
        options.results / "carried.md",
        Path(__file__).with_name("page.md.in"),
        machine=machine_line(),
        resolution=RESOLUTION,
        tables="\n\n".join(tables),
    )
    plot(by_trace, options.results / "carried.png")
    write_json(options.out, {"rows": [asdict(row) for rows in by_trace for row in rows]})


def described(one: CarriedLoad) -> str:
    return f"{one.trace:24} {one.policy:20} load {one.load:.2f}, good {one.good_load:.2f}, 2x {one.in_time_at_2x:.3f}"


def beside_exact(rows: Sequence[CarriedLoad]) -> list[CarriedLoad]:
    exact = max(next(one.load for one in rows if one.policy == EXACT_ONLY), RESOLUTION)
    return [replace(one, over_exact=one.load / exact) for one in rows]


if __name__ == "__main__":
    main()
