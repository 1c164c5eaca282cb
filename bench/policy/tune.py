"""How the rivals' tuned constants were found: `python -m bench.policy.tune --prompts FILE --arrivals FILE ...`.

Every candidate of a small grid runs on the development traces, on both ladders, at SLO 2x and 5x. The one of the
largest mean goodput (images in time x quality, of all offered) is the rival's tuned row, and the best one over the
calm traces alone its calm row. Nothing is random, and no held-out trace is looked at. The values found stand in
`t2i_simulator.rivals.catalogue`.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from statistics import fmean

from bench.kit.arguments import ARRIVALS, PROMPTS, BenchParser
from bench.kit.output import say, write_json
from bench.kit.prompts import embed_prompts, prompt_lines
from bench.policy.jobs import PolicyJob, run_jobs
from bench.policy.traces import LOADS, Trace, TraceRunner, TraceSet
from t2i_policy.policies import ServingPolicy
from t2i_simulator.rivals.cascade import Cascade
from t2i_simulator.rivals.common import Strength
from t2i_simulator.rivals.infaas import VariantByBacklog
from t2i_simulator.rivals.nirvana import MeasuredThresholds
from t2i_simulator.rivals.pac import PromptAgnostic
from t2i_simulator.rivals.paper import ThePaper
from t2i_simulator.rivals.proteus import Proteus
from t2i_simulator.rivals.sommelier import Sommelier

ONE_LEVEL = Strength(1.15, whole_ladder=True)
FREE = (
    Strength(1.15, any_worker=True),
    *(Strength(headroom, any_worker=True, whole_ladder=True) for headroom in (1.0, 1.05, 1.15, 1.3, 1.5, 1.8, 2.2)),
)
MARKS = (
    (0.0, 0.4),
    (0.0, 0.6),
    (0.1, 0.5),
    (0.2, 0.5),
    (0.3, 0.6),
    (0.25, 0.65),
    (0.4, 0.75),
    (0.45, 0.9),
)  # of the slack: exact, lightest
TOLERANCES = (0.01, 0.02, 0.05)
SETTINGS = (("skips", 5), ("skips", 2), ("hybrid", 5))
PARSER = BenchParser(__doc__, "policy", quick={"count": 200, "minutes": 3.0}, figures="policy-tuning.json")
PARSER.add_input(PROMPTS)
PARSER.add_input(ARRIVALS, many=True)
PARSER.add_argument("--count", type=int, default=800, help="requests of a trace")
PARSER.add_argument("--minutes", type=float, default=20.0, help="length of the burst")


def candidates() -> Iterator[ServingPolicy]:
    """Named `rival: what was tried`."""
    for strength in (ONE_LEVEL, *FREE):
        yield ThePaper(strength, chained=True, name=f"paper: {strength}, chained")
        yield Proteus(strength, f"proteus: {strength}")
        yield Sommelier(strength, f"sommelier: {strength}")
    for strength in FREE[-5:]:
        yield ThePaper(strength, name=f"paper: {strength}, one hop")
    for strength in FREE:
        yield PromptAgnostic(strength, f"pac: {strength}")
        yield Cascade(strength, f"cascade: {strength}")
    for low, high in MARKS:
        yield VariantByBacklog(low, high, Strength(whole_ladder=True), f"infaas: {low} to {high}")
    for tolerance in TOLERANCES:
        yield MeasuredThresholds(tolerance, f"nirvana: {tolerance}")


def development(traces: TraceSet) -> list[Trace]:
    return [trace for ladder, multiple in SETTINGS for trace in traces.make(ladder, multiple) if not trace.held_out]


def is_calm(trace: Trace) -> bool:
    """Room for everybody: the lower load at the loosest SLO."""
    return trace.name.endswith(f" at {LOADS[0]}") and trace.multiple == max(multiple for _, multiple in SETTINGS)


def main(arguments: Sequence[str] | None = None) -> None:
    options = PARSER.parse(arguments)
    runner = TraceRunner.of(embed_prompts(prompt_lines(options.prompts)), 0)
    traces = development(TraceSet(options.arrivals, options.count, options.minutes, 0))
    runs = run_jobs(runner, [PolicyJob(trace, policy, bounded=False) for policy in candidates() for trace in traces])
    ranked = []
    for name, group in groupby(runs, key=lambda run: run.row.policy):
        own = list(group)
        calm = fmean(run.row.goodput_percent for run in own if is_calm(run.trace))
        ranked.append({"candidate": name, "goodput": fmean(run.row.goodput_percent for run in own), "calm": calm})
    ranked.sort(key=lambda one: (str(one["candidate"]).partition(":")[0], -float(one["goodput"])))
    for one in ranked:
        say("{candidate:90} {goodput:6.2f}, calm {calm:6.2f}".format(**one))
    write_json(options.out, ranked)


if __name__ == "__main__":
    main()
