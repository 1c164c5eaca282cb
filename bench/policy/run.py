"""Every policy on the same traces: `make bench-policy` -> build/bench/policy.json, bench/results/policy.md and plots.

Traces: the bursty shape of the paper's lineage (3 bursts to about 390 queries/min on 8 SDXL workers, base 50) at SLOs
of 2, 3 and 5 times the time of an exact image, and the arrival files given by --arrivals, rescaled to shares of what
the pool carries with everybody at K=25. Prompts in order, embedded by a sentence encoder; caches start empty. Profile
and truth are the lineage's (`t2i_simulator.lineage`), assumed and not measured. Nothing here is tuned: policies run
with the defaults that they ship with.
"""

import numpy as np

from bench.kit.arguments import ARRIVALS, PROMPTS, BenchParser
from bench.kit.output import write_json
from bench.kit.places import example_spec
from bench.kit.prompts import EmbeddedPrompts, embed_prompts, prompt_lines
from bench.policy.page import write_report
from bench.policy.traces import EXACT_S, MULTIPLES, TraceRunner, ablation_traces, main_traces, sensitivity_traces
from t2i_policy.policies import PromptAware
from t2i_simulator.report import Row, Timeline
from t2i_simulator.rivals.ablations import ablations
from t2i_simulator.rivals.catalogue import all_policies, policy_named

FEWER = ("prompt-aware", "paper", "proteus", "pac", "sommelier", "nirvana", "clipper-ha")  # at the other SLOs
IF_WRONG = ("prompt-aware", "paper", "nirvana", "proteus")
PARSER = BenchParser(__doc__, "policy", quick={"minutes": 3.0}, page=True)
PARSER.add_input(PROMPTS)
PARSER.add_input(ARRIVALS, many=True)
PARSER.add_argument("--minutes", type=float, default=120.0, help="length of the burst")
PARSER.add_argument("--seed", type=int, default=0)


def main() -> None:
    options = PARSER.parse()
    prompts = embed_prompts(prompt_lines(options.prompts))
    runner, spec = TraceRunner.of(prompts, options.seed), example_spec("pool-sdxl-8")
    rows: dict[str, list[Row]] = {"policies": [], "ablations": [], "sensitivity": []}
    timelines: dict[str, Timeline] = {}
    for trace in main_traces(spec, options.arrivals, options.seed, options.minutes):
        is_tight = trace.name.startswith("burst") and trace.slo_s < max(MULTIPLES) * EXACT_S
        runs = runner.run_all(trace, [policy_named(name) for name in FEWER] if is_tight else all_policies())
        rows["policies"] += [run.row for run in runs]
        timelines = timelines or {run.row.policy: run.timeline for run in runs}  # of the first trace
    for trace in ablation_traces(options.seed, options.minutes):
        rows["ablations"] += [run.row for run in runner.run_all(trace, [PromptAware(), *ablations()])]
    for trace in sensitivity_traces(spec, options.seed, options.minutes):
        rows["sensitivity"] += [run.row for run in runner.run_all(trace, [policy_named(name) for name in IF_WRONG])]
    write_report(rows, timelines, _best_similarity(prompts), options.results)
    write_json(options.out, [dict(row.to_document(), table=name) for name, table in rows.items() for row in table])


def _best_similarity(prompts: EmbeddedPrompts) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Of each line's prompt, from the second on, to those of the lines before it."""
    vectors = prompts.in_order
    return np.array([float((vectors[:line] @ vectors[line]).max()) for line in range(1, len(vectors))])


if __name__ == "__main__":
    main()
