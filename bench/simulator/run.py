"""How long the simulator takes for a day of a 64-worker pool: `make bench-simulator` -> build/bench/simulator.json.

Arrivals are Poisson, their rate a sine over the day around `--load` times what the pool carries at K=0; the pool is
examples/pool-sdxl-8.yaml grown to 64 workers, similarities are drawn from the lineage's histogram. One process, one
core: CPU seconds say what an unshared machine needs.
"""

import sys
import time
from collections.abc import Sequence
from math import pi

import numpy as np

from bench.kit.arguments import BenchParser
from bench.kit.machine import load_average
from bench.kit.output import write_json
from bench.kit.places import EXAMPLES, example_spec
from bench.policy.traces import full_rate_rps
from t2i_simulator.engine import simulate
from t2i_simulator.profiles import build_groups
from t2i_simulator.rivals.catalogue import policy_named
from t2i_simulator.workload import build_workload

WORKERS = 64
SWING = 0.5  # of the mean rate, up by day and down by night
DAY_S = 86_400
PARSER = BenchParser(__doc__, "simulator", quick={"hours": 0.5})
PARSER.add_argument("--hours", type=float, default=24.0)
PARSER.add_argument("--load", type=float, default=0.5, help="mean load, of what the pool carries at K=0")
PARSER.add_argument("--policy", default="prompt-aware")


def diurnal_arrivals(hours: float, mean_rps: float, seed: int) -> Sequence[float]:
    """Ascending instants in seconds from the day's start."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(int(hours * 3600))
    counts = rng.poisson(mean_rps * (1 + SWING * np.sin(2 * pi * seconds / DAY_S)))
    arrived_s: list[float] = np.sort(np.repeat(seconds, counts) + rng.random(counts.sum())).tolist()
    return arrived_s


def main() -> None:
    options = PARSER.parse()
    spec = example_spec("pool-sdxl-8")
    groups = build_groups(spec, EXAMPLES, None, None, WORKERS)
    exact_rps = full_rate_rps(groups, spec.model.num_inference_steps)
    arrived_s = diurnal_arrivals(options.hours, options.load * exact_rps, seed=7)
    workload = build_workload(spec, groups, arrived_s, None)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    outcomes = simulate(workload.scenario, policy_named(options.policy), _show)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    print(file=sys.stderr)
    figures = {
        "hours": options.hours,
        "workers": WORKERS,
        "policy": options.policy,
        "load": options.load,
        "requests": len(arrived_s),
        "plans": len(outcomes.plans),
        "wall_s": round(wall_s, 1),
        "cpu_s": round(cpu_s, 1),
        "cpu_us_per_request": round(1e6 * cpu_s / len(arrived_s), 1),
        "load_average_1min": load_average(2),
    }
    write_json(options.out, figures)


def _show(arrived: int) -> None:
    print(f"\rrequests: {arrived}", end="", file=sys.stderr)


if __name__ == "__main__":
    main()
