"""Every policy on the same traces: `make bench-policy` -> build/bench/policy.json, bench/results/policy.md, a plot, and
bench/results/policy-rows.md with every row.

Traces (`traces`) are development and held out, on a ladder of skips and on a hybrid one. SLOs are 2, 3 and 5 times an
exact image; at 3 times most rivals as published are left out. Ours also runs with 2 and 4 gateways, and some with wrong
losses (`wrong_losses`). Prompts in order, embedded by a sentence encoder. Profile and truth are the lineage's
(`t2i_simulator.lineage`), assumed and not measured. Rivals run as published and tuned (`tune`).
"""

import argparse
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import product

import numpy as np
import numpy.typing as npt

from bench.kit.arguments import ARRIVALS, PROMPTS, BenchParser
from bench.kit.output import write_json
from bench.kit.places import EXAMPLES
from bench.kit.prompts import EmbeddedPrompts, embed_prompts, prompt_lines
from bench.policy.devices import device_rows, device_table
from bench.policy.jobs import PolicyJob, run_jobs
from bench.policy.page import write_report
from bench.policy.tenants import TENANTS_S, tenants_rows, tenants_table
from bench.policy.traces import LADDERS, PolicyRun, Trace, TraceRunner, TraceSet
from bench.policy.wrong_losses import TRUTHS
from t2i_policy.policies import ServingPolicy
from t2i_policy.profile import LevelProfile
from t2i_simulator.profiles import build_groups
from t2i_simulator.rivals.catalogue import OURS, TUNED, all_policies, policy_named

BETWEEN = 3  # the SLO of fewer rows
ABLATIONS = ("ours-deadline-only", "ours-shift-map")
NO_CACHE = "fewer-steps-only"  # on a ladder of skips it is clipper-ha
IF_WRONG = (OURS, "paper", "paper-tuned-calm", "infaas-tuned", "pac-tuned-calm")
QUICK = {"minutes": 3.0, "count": 60, "ladders": ["skips"], "multiples": [5], "gateways": [2]}
PARSER = BenchParser(__doc__, "policy", quick=QUICK, page=True)
PARSER.add_input(PROMPTS)
PARSER.add_input(ARRIVALS, many=True)
PARSER.add_argument("--minutes", type=float, default=40.0, help="length of the burst")
PARSER.add_argument("--count", type=int, default=2000, help="requests of every other trace")
PARSER.add_argument("--ladders", nargs="+", choices=LADDERS, default=list(LADDERS))
PARSER.add_argument("--multiples", type=int, nargs="+", default=[5, 3, 2], help="SLOs in exact images, loosest first")
PARSER.add_argument("--gateways", type=int, nargs="+", default=[2, 4], help="beside one")
PARSER.add_argument("--seed", type=int, default=0)


def policies_on(ladder: str, multiple: int) -> list[ServingPolicy]:
    """Ours, its ablations, rivals as published and tuned."""
    rivals = all_policies()
    if multiple == BETWEEN:
        rivals = tuple(one for one in rivals if one.name in (OURS, "paper", NO_CACHE) or TUNED in one.name)
    every = (*rivals, *map(policy_named, ABLATIONS))
    return [policy for policy in every if ladder != "skips" or policy.name != NO_CACHE]


def all_jobs(traces: TraceSet, options: argparse.Namespace) -> Iterator[PolicyJob]:
    for ladder in options.ladders:
        for multiple in options.multiples:
            for trace in traces.make(ladder, multiple):
                yield from (PolicyJob(trace, policy) for policy in policies_on(ladder, multiple))
        at_rest = list(traces.make(ladder, options.multiples[0]))
        for trace, gateways in product(at_rest, options.gateways):
            several = replace(trace, gateways=gateways)
            yield from (PolicyJob(several, policy_named(name)) for name in (OURS, "infaas-tuned"))
        for trace, (name, truth) in product(at_rest[1:2] or at_rest, TRUTHS.items()):
            wrong = replace(trace, truth=truth(believed_profile(trace)), truth_name=name)
            yield from (PolicyJob(wrong, policy_named(policy)) for policy in IF_WRONG)


def believed_profile(trace: Trace) -> LevelProfile:
    (profile,) = {group.profile for group in build_groups(trace.spec, EXAMPLES, None)}
    return profile


def document(run: PolicyRun) -> dict[str, object]:
    trace = run.trace
    part = "held-out" if trace.held_out else "development"
    setting = {"part": part, "ladder": trace.ladder, "slo_multiple": trace.multiple, "gateways": trace.gateways}
    return setting | {"truth": trace.truth_name} | run.row.to_document()


def main() -> None:
    options = PARSER.parse()
    prompts = embed_prompts(prompt_lines(options.prompts))
    traces = TraceSet(options.arrivals, options.count, options.minutes, options.seed)
    runner = TraceRunner.of(prompts, options.seed)
    runs = run_jobs(runner, list(all_jobs(traces, options)))
    devices = device_rows(runner, options.count)
    tenants = tenants_rows(options.seed, min(TENANTS_S, 60 * options.minutes))
    beside = [{"part": "tenants"} | asdict(row) for row in tenants] + [{"part": "devices"} | row for row in devices]
    write_json(options.out, [document(run) for run in runs] + beside)
    tables = {"tenants": tenants_table(tenants), "devices": device_table(devices)}
    write_report(runs, best_similarity(prompts), options.results, tables)


def best_similarity(prompts: EmbeddedPrompts) -> npt.NDArray[np.float64]:
    """Of each line's prompt, from the second on, to those of the lines before it."""
    vectors = prompts.in_order
    return np.array([float((vectors[:line] @ vectors[line]).max()) for line in range(1, len(vectors))])


if __name__ == "__main__":
    main()
