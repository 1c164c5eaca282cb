"""How long a decision takes: `make bench-decide` -> build/bench/decide.json.

`request` is one request on a pool of 64 workers: the level (`PromptAware.serve`) and the worker
(`PromptAware.place`), over snapshots from idle to overloaded, prompts of every class, on a ladder of 10 levels and 10
bands of similarity. `view` is the snapshot that both read, built once for every change of the pool. `plans` are of
`make_plan` for pools of up to 256 workers, 10 levels and 12 prompt classes, over demands from a tenth of the exact
capacity to twice the cheapest level's; with one device type and with three. The
losses are made up: smooth in similarity and in steps saved, as measured ones are. The step times are those of SDXL on
an A10G: the lineage's 4.2 s x (1 - K/50) at batch 1, and little gained by batching.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from bench.kit.arguments import BenchParser
from bench.kit.machine import load_average
from bench.kit.output import write_json
from t2i_policy.level import Level, build_ladder
from t2i_policy.planning.capacity import group_capacities
from t2i_policy.planning.plan import GroupCapacity, Method, PromptClass, make_plan
from t2i_policy.policies import PromptAware
from t2i_policy.pool_view import PoolView, WorkerView
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.request.decide import Arrival, Rules, build_rules
from t2i_policy.request.options import Limits, Neighbourhood

N, SLO_S, MAX_LOSS, WORKERS = 50, 20.0, 0.1, 64
LEVELS = [Level(k, N) for k in (0, 5, 10, 15, 20, 25, 30)] + [Level(0, n) for n in (40, 30, 20)]
EDGES = (-1.0, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
PLAN_POOLS = ((256, 1), (256, 3), (64, 1), (8, 1))  # workers, device types
STEP_S = (0.084, 0.164, 0.243, 0.320)
Result = TypeVar("Result")
PARSER = BenchParser(__doc__, "decide", quick={"requests": 200, "plans": 5})
PARSER.add_argument("--requests", type=int, default=5000)
PARSER.add_argument("--plans", type=int, default=200)


def make_rules() -> Rules:
    """10 levels, 10 bands; with the classes `none` and `exact` 12."""
    bands = []
    for level in LEVELS:
        saved = 1 - level.steps_run / N
        if not level.needs_latent:
            bands.append(BandLoss(level, -1.0, 1.01, 0.3 * saved**2, 0.001, 200))
            continue
        for low, high in zip(EDGES, (*EDGES[1:], 1.01), strict=True):
            bands.append(BandLoss(level, low, high, 0.8 * saved * (1 - max(low, 0.0)) ** 1.5, 0.001, 200))
    profile = LevelProfile("digest", "A10G", N, STEP_S, 0.3, tuple(bands))
    return build_rules(build_ladder(N, LEVELS), profile, SLO_S, MAX_LOSS)


def busy_pool(rng: random.Random, load: float) -> PoolView:
    """64 workers whose batches are about `load` full; above 1 requests wait in the gateway."""
    workers = []
    for index in range(WORKERS):
        running = sum(rng.random() < load for _ in STEP_S)
        waiting = 1 if load > 1 and rng.random() < load - 1 else 0
        left = sum(rng.randint(1, N) for _ in range(running + waiting))
        workers.append(
            WorkerView(f"w{index:03}", True, running, waiting, 4, STEP_S, 0.3, left, "gpu", rng.choice(LEVELS))
        )
    queued = int(max(0.0, load - 1) * WORKERS * 4)
    return PoolView(tuple(workers), queued, queued * 35)


def arrival(rng: random.Random) -> Arrival:
    """A prompt of any class; one in ten has no neighbour, one in ten a hole in its cache."""
    stored = frozenset(level.skipped_steps for level in LEVELS if level.needs_latent)
    near = Neighbourhood(rng.uniform(0.3, 1.0), stored - {10, 20} if rng.random() < 0.1 else stored)
    return Arrival(
        Limits(MAX_LOSS), Neighbourhood(None, frozenset()) if rng.random() < 0.1 else near, SLO_S, rng.random()
    )


@dataclass(frozen=True, slots=True)
class Took:
    """Milliseconds by the wall, and of this thread's own processor time: what other processes take is not in it."""

    wall_ms: float
    cpu_ms: float

    def __add__(self, other: "Took") -> "Took":
        return Took(self.wall_ms + other.wall_ms, self.cpu_ms + other.cpu_ms)


def timed(do: Callable[[], Result], times: list[Took]) -> Result:
    """What came out; how long it took goes to `times`."""
    begin, cpu_begin = time.perf_counter(), time.thread_time()
    result = do()
    cpu_s = time.thread_time() - cpu_begin
    times.append(Took(1000 * (time.perf_counter() - begin), 1000 * cpu_s))
    return result


def quantiles(times: Sequence[Took]) -> dict[str, float]:
    found: dict[str, float] = {"samples": len(times)}
    for kind in ("wall_ms", "cpu_ms"):
        ordered = sorted(getattr(took, kind) for took in times)
        at = {"p50": len(ordered) // 2, "p99": int(0.99 * len(ordered)), "max": len(ordered) - 1}
        found |= {f"{name}_{kind}": round(ordered[min(index, len(ordered) - 1)], 4) for name, index in at.items()}
    return found


def bench_request(rules: Rules, rounds: int) -> dict[str, Any]:
    """Serve + place, and the snapshot, over loads from 0 to 1.5."""
    rng, policy = random.Random(7), PromptAware()
    groups = group_capacities(busy_pool(rng, 0.5).workers, LEVELS, SLO_S)
    plan = make_plan(groups, demand(rules, rng, 20.0))
    serve: list[Took] = []
    place: list[Took] = []
    view: list[Took] = []
    for index in range(rounds):
        busy = busy_pool(rng, 1.5 * (index % 31) / 30)
        pool = timed(partial(PoolView, busy.workers, busy.queued, busy.queued_steps), view)
        decided = timed(partial(policy.serve, rules, plan, arrival(rng), pool), serve)
        timed(partial(policy.place, decided.served.level, pool, SLO_S, frozenset()), place)
    whole = [one + other for one, other in zip(serve, place, strict=True)]
    parts = {"serve_and_place": whole, "serve": serve, "place": place, "view": view}
    return {"workers": WORKERS, "levels": len(LEVELS), **{name: quantiles(values) for name, values in parts.items()}}


def demand(rules: Rules, rng: random.Random, total_rps: float) -> tuple[PromptClass, ...]:
    shares = {name: rng.expovariate(1.0) for name in rules.classes.losses}
    scale = total_rps / sum(shares.values())
    return rules.classes.with_rates({name: share * scale for name, share in shares.items()})


def plan_groups(num_workers: int, kinds: int) -> tuple[GroupCapacity, ...]:
    """Workers of one speed, or split over device types of different speeds."""
    workers = []
    for index in range(num_workers):
        speed = (1.0, 2.6, 4.4)[index % kinds]
        steps = tuple(step / speed for step in STEP_S)
        workers.append(WorkerView(f"w{index:03}", True, 0, 0, 4, steps, 0.3 / speed, 0, f"g{index % kinds}"))
    return group_capacities(workers, LEVELS, SLO_S)


def bench_plan(rules: Rules, num_workers: int, kinds: int, rounds: int) -> dict[str, Any]:
    """A plan for each demand."""
    rng, groups = random.Random(11), plan_groups(num_workers, kinds)
    exact_rps = sum(group.num_workers * group.rates_rps[LEVELS[0]] for group in groups)
    fastest_rps = sum(group.num_workers * max(group.rates_rps.values()) for group in groups)
    times: list[Took] = []
    methods: list[Method] = []
    for index in range(rounds):
        total_rps = 0.1 * exact_rps + (2 * fastest_rps - 0.1 * exact_rps) * index / max(1, rounds - 1)
        classes = demand(rules, rng, total_rps)
        methods.append(timed(partial(make_plan, groups, classes), times).method)
    found = {method.value: methods.count(method) for method in Method}
    return {"workers": num_workers, "groups": kinds, "levels": len(LEVELS), "classes": 12, **quantiles(times), **found}


def main() -> None:
    options = PARSER.parse()
    rules = make_rules()
    figures = {
        "load_average_1min": load_average(),
        "request": bench_request(rules, options.requests),
        "plans": [bench_plan(rules, workers, kinds, options.plans) for workers, kinds in PLAN_POOLS],
    }
    write_json(options.out, figures)


if __name__ == "__main__":
    main()
