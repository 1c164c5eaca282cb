"""How the constants of moves were found: `python -m bench.models.tune --prompts FILE --arrivals FILE ...`.

Each candidate runs on development traces alone: the lineage's burst and the first arrivals of the files, at loads from
low to high, from a pool that is far from the best one and one that is near it. What counts is the mean goodput, and how
many moves it took.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Any

from bench.kit.arguments import ARRIVALS, PROMPTS, BenchParser
from bench.kit.output import say, write_json
from bench.kit.prompts import embed_prompts, prompt_lines
from bench.models.moves import RELOAD_S, MovesJob
from bench.models.pools import ModelsTrace, load_rps
from bench.policy.jobs import in_processes
from bench.policy.traces import SEEN, TraceRunner, rescaled, trace_name
from t2i_policy.planning import moves
from t2i_simulator.traces import bursty_arrivals

PARSER = BenchParser(__doc__, "models", quick={"seconds": 60}, figures="models-tuning.json")
PARSER.add_input(PROMPTS)
PARSER.add_input(ARRIVALS, many=True)
PARSER.add_argument("--seconds", type=float, default=600.0, help="length of a trace")
PARSER.add_argument("--vary", default="", help="NAME=VALUE,VALUE of a constant; default: all of the grid")
GRID: dict[str, Sequence[float]] = {
    "HEADROOM": (1.0, 1.5),
    "HORIZON_S": (150.0, 600.0),
    "FOLLOWED_S": (20.0, 180.0),
    "MIN_GAIN": (0.0, 0.05),
}
LOADS = (0.6, 2.0)
STARTS = (1, 4)


@dataclass(frozen=True, slots=True)
class TunedJob:
    """A run with one constant of `t2i_policy.planning.moves` set to another value."""

    constant: str
    value: float
    job: MovesJob

    def run(self) -> dict[str, Any]:
        before = getattr(moves, self.constant, None)
        if before is not None:
            setattr(moves, self.constant, self.value)
        try:
            found = self.job.run()
        finally:
            if before is not None:
                setattr(moves, self.constant, before)
        return {"constant": self.constant, "value": self.value, "reload_s": self.job.reload_s, **found}


def development(options: Any) -> Iterator[ModelsTrace]:
    for load in LOADS:
        for path in options.arrivals:
            count = min(SEEN, round(options.seconds * load_rps(load)))
            yield ModelsTrace(trace_name(path), load, rescaled(path, load_rps(load), 0, count))
    yield ModelsTrace("burst", 0.0, bursty_arrivals(options.seconds / 60, 16, 0, options.seconds / 1440))


def jobs(options: Any) -> list[TunedJob]:
    grid = GRID
    if options.vary:
        name, _, values = options.vary.partition("=")
        grid = {name: [float(value) for value in values.split(",")]}
    traces = list(development(options))
    tried = [(name, value) for name, values in grid.items() for value in values]
    stay = [TunedJob("stay", 0.0, MovesJob(trace, start, 0.0)) for trace, start in product(traces, STARTS)]
    return stay + [
        TunedJob(name, value, MovesJob(trace, start, RELOAD_S))
        for name, value in [("as it is", 0.0), *tried]
        for trace, start in product(traces, STARTS)
    ]


def means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for constant, value in dict.fromkeys((row["constant"], row["value"]) for row in rows):
        own = [row for row in rows if (row["constant"], row["value"]) == (constant, value)]
        names = ("goodput_percent", "violation_percent", "reloads")
        found.append(
            {"constant": constant, "value": value, **{name: fmean(row[name] for row in own) for name in names}}
        )
    return found


def main() -> None:
    options = PARSER.parse()
    runner = TraceRunner.of(embed_prompts(prompt_lines(options.prompts)), 0)
    rows = in_processes(
        runner, TunedJob.run, jobs(options), "{constant} {value}: {trace} {goodput_percent:.2f}".format_map
    )
    found = means(rows)
    for row in found:
        say(
            "{constant} {value}: goodput {goodput_percent:.3f}, violated {violation_percent:.3f}, "
            "moves {reloads:.2f}".format(**row)
        )
    write_json(options.out, [*found, *rows])


if __name__ == "__main__":
    main()
