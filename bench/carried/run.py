"""Load that each policy carries: `make bench-carried` -> build/bench/carried.json, bench/results/carried.md and a plot.

For a trace and a policy: the largest load with at most 5 % violations, found by halving an interval of loads down to
`RESOLUTION`, in shares of what the pool carries with everybody at K=25. And the images in time at twice that capacity.
Pool, prompts, profile, truth and defaults are those of `make bench-policy`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from bench.kit.arguments import ARRIVALS, PROMPTS, BenchParser
from bench.kit.machine import machine_line
from bench.kit.output import rows_table, say, write_json, write_page
from bench.kit.places import example_spec
from bench.kit.plots import save_plot, subplots
from bench.kit.prompts import embed_prompts, prompt_lines
from bench.policy.traces import EXACT_S, Trace, TraceRunner, k25_rate_rps, rescaled, trace_name
from t2i_api.pool import PoolSpec
from t2i_simulator.report import Row
from t2i_simulator.rivals.catalogue import policy_named

POLICIES = ("prompt-aware", "paper", "proteus", "pac", "nirvana", "clipper-ha")
EXACT_ONLY = "clipper-ha"
MAX_VIOLATED_PERCENT = 5.0
LEAST, MOST, RESOLUTION = 0.2, 1.4, 0.03  # of the capacity at K=25
OVERLOAD = 2.0
COLUMNS = {
    "policy": "{policy}",
    "load carried": "{load:.2f}",
    "over K=0": "{over_exact:.2f}",
    "quality there, %": "{quality_percent:.2f}",
    "in time at 2x": "{in_time_at_2x:.3f}",
}
PARSER = BenchParser(__doc__, "carried", quick={"arrivals_each": 200}, page=True)
PARSER.add_input(PROMPTS)
PARSER.add_input(ARRIVALS, many=True)
PARSER.add_argument("--arrivals-each", type=int, default=4000, help="Poisson arrivals of a run")
PARSER.add_argument("--seed", type=int, default=0)


@dataclass(frozen=True, slots=True)
class CarriedLoad:
    """One policy on one trace. Loads are of the capacity at K=25; `over_exact` of what K=0 carries on this trace."""

    trace: str
    policy: str
    load: float
    quality_percent: float
    over_exact: float
    in_time_at_2x: float


@dataclass(frozen=True, slots=True)
class ScaledTrace:
    """A trace that can be had at any mean rate."""

    name: str
    spec: PoolSpec
    arrivals: Callable[[float], list[float]]  # of the rate in requests/s

    def run(self, runner: TraceRunner, policy: str, load: float) -> Row:
        """The policy at this load, in shares of the capacity at K=25."""
        trace = Trace(self.name, self.spec, self.arrivals(load * k25_rate_rps(self.spec)), 5 * EXACT_S)
        return runner.run(trace, runner.workload(trace), policy_named(policy)).row


def poisson(seed: int, count: int, rate_rps: float) -> list[float]:
    gaps: list[float] = np.random.default_rng(seed).exponential(1 / rate_rps, count).cumsum().tolist()
    return gaps


def judge(runner: TraceRunner, trace: ScaledTrace) -> list[CarriedLoad]:
    found = [judge_policy(runner, trace, policy) for policy in POLICIES]
    exact = max(next(one.load for one in found if one.policy == EXACT_ONLY), RESOLUTION)
    return [replace(one, over_exact=one.load / exact) for one in found]


def judge_policy(runner: TraceRunner, trace: ScaledTrace, policy: str) -> CarriedLoad:
    """The largest load, to within RESOLUTION, with few enough violations; 0 if there is none from LEAST on."""
    row = trace.run(runner, policy, LEAST)
    low, high, quality = 0.0, LEAST, row.quality_percent
    if row.violation_percent <= MAX_VIOLATED_PERCENT:
        low, high = LEAST, MOST
    while low and high - low > RESOLUTION:
        middle = (low + high) / 2
        row = trace.run(runner, policy, middle)
        if row.violation_percent <= MAX_VIOLATED_PERCENT:
            low, quality = middle, row.quality_percent
        else:
            high = middle
    in_time = (100 - trace.run(runner, policy, OVERLOAD).violation_percent) / 100 * OVERLOAD
    say(f"{trace.name:28} {policy:14} load {low:.2f}, in time at 2x {in_time:.3f}")
    return CarriedLoad(trace.name, policy, low, quality if low else 0.0, 0.0, in_time)


def plot(by_trace: Sequence[Sequence[CarriedLoad]], to: Path) -> None:
    figure, axes = subplots(figsize=(9, 4))
    places, width = np.arange(len(by_trace)), 0.8 / len(POLICIES)
    for number, policy in enumerate(POLICIES):
        axes.bar(places + number * width, [rows[number].load for rows in by_trace], width, label=policy)
    axes.set_xticks(places + 0.4 - width / 2, [rows[0].trace for rows in by_trace])
    axes.set_ylabel("load at 5 % violations,\nof the capacity at K=25")
    axes.legend(fontsize=8, ncols=6, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    save_plot(figure, to)


def main() -> None:
    options = PARSER.parse()
    runner = TraceRunner.of(embed_prompts(prompt_lines(options.prompts)), options.seed)
    spec = example_spec("pool-sdxl-8")
    traces = [ScaledTrace("poisson", spec, partial(poisson, options.seed, options.arrivals_each))]
    traces += [ScaledTrace(trace_name(path), spec, partial(rescaled, path)) for path in options.arrivals]
    by_trace = [judge(runner, trace) for trace in traces]
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


if __name__ == "__main__":
    main()
