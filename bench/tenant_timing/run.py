"""Does the wall clock tell a tenant whether another one has cached a prompt? `make bench-tenant-timing`

A real gateway and a simulated worker over TLS. The victim has latents of half of the prompts and has just had them
embedded; the prober asks each prompt once, one request at a time. Mixed into the same random order are requests whose
time must differ, as controls: the victim's own hits, and prompts that the prober itself has asked before.

    p_value          Mann-Whitney, two-sided: cached and unknown prompts take alike long
    auc, auc_95      chance that a cached one takes longer, with its bootstrapped 95 % interval; 0.5 = no signal
    found_shift_ms   smallest shift of all cached probes that this test finds in 9 of 10 runs at 1 % (by resampling)
    hit_saves_ms     what the victim's own hits save: what an attacker would see with shared latents
    again_saves_ms   what a remembered embedding saves: what it would see if embeddings were shared

The JSON also has the machine and its load: on a busy one the clock is noisy and found_shift_ms grows.
"""

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import mannwhitneyu

from bench.kit.arguments import BenchParser
from bench.kit.output import write_json
from t2i_runtime.tokens import line_of, new_token
from t2i_testing_kit.cached_prompts import captions, seed_store
from t2i_testing_kit.secured_pool import TOKEN, Caller, SecuredPool

LEVEL, POWER, RESAMPLES = 0.01, 0.9, 100
STEP_S = 0.002
Times = npt.NDArray[np.float64]
PARSER = BenchParser(__doc__, "tenant-timing", quick={"probes": 30})
PARSER.add_argument("--probes", type=int, default=500, help="of each kind")


async def timed(caller: Caller, prompt: str) -> float:
    began = time.perf_counter()
    await caller.generate(prompt, 60.0, seed=1)
    return 1e3 * (time.perf_counter() - began)


def p_value(one: Times, other: Times) -> float:
    return float(mannwhitneyu(one, other).pvalue)


def auc(one: Times, other: Times) -> float:
    """The chance that a time of the one takes longer than a time of the other."""
    return float(mannwhitneyu(one, other).statistic / (len(one) * len(other)))


def auc_95(cached: Times, unknown: Times, draw: np.random.Generator) -> list[float]:
    """Its bootstrapped 95 % interval."""
    drawn = [auc(draw.choice(cached, len(cached)), draw.choice(unknown, len(unknown))) for _ in range(1000)]
    return [float(bound) for bound in np.percentile(drawn, [2.5, 97.5])]


def found_shift_ms(times: Times, size: int, draw: np.random.Generator) -> float:
    """The smallest shift that is found often enough, among steps of about an eighth."""
    for shift in np.geomspace(0.05, 100.0, 60):
        found = [p_value(draw.choice(times, size) - shift, draw.choice(times, size)) < LEVEL for _ in range(RESAMPLES)]
        if np.mean(found) >= POWER:
            return float(shift)
    return float("inf")


async def measure(probes: int, folder: Path) -> dict[str, object]:
    """Milliseconds of every request, judged."""
    controls = probes // 3
    asked = captions(2 * probes + 2 * controls, seed=11)
    cached, unknown = asked[:probes], asked[probes : 2 * probes]
    hit, again = asked[2 * probes : -controls], asked[-controls:]
    tenants = {name: new_token() for name in ("victim", "prober")}
    lines = "\n".join(line_of(token, name) for name, token in tenants.items())
    await seed_store(folder / "latents", "p", {"victim": [*cached, *hit]})
    async with SecuredPool(folder, TOKEN, tokens=lines, step_s=STEP_S) as pool:
        victim, prober = (pool.caller(tenants[name]) for name in ("victim", "prober"))
        for prompt in cached:
            await victim.explain(prompt)
        for prompt in again:
            await prober.explain(prompt)
        kinds = {"cached": cached, "unknown": unknown, "hit": hit, "again": again}
        order = [(prompt, kind) for kind, prompts in kinds.items() for prompt in prompts]
        random.Random(3).shuffle(order)
        took: dict[str, list[float]] = {kind: [] for kind in kinds}
        for prompt, kind in order:
            took[kind].append(await timed(victim if kind == "hit" else prober, prompt))
        for caller in (victim, prober):
            await caller.channel.close()
    return judge({kind: np.array(times) for kind, times in took.items()})


def judge(took: Mapping[str, Times]) -> dict[str, object]:
    """The figures that the module lists."""
    cached, unknown = took["cached"], took["unknown"]
    draw = np.random.default_rng(0)
    return {
        "probes_of_each_kind": len(cached),
        "p_value": p_value(cached, unknown),
        "auc": auc(cached, unknown),
        "auc_95": auc_95(cached, unknown, draw),
        "found_shift_ms": found_shift_ms(np.concatenate([cached, unknown]), len(cached), draw),
        "median_ms": {kind: float(np.median(times)) for kind, times in took.items()},
        "hit_saves_ms": float(np.median(unknown) - np.median(took["hit"])),
        "hit_p_value": p_value(took["hit"], unknown),
        "again_saves_ms": float(np.median(unknown) - np.median(took["again"])),
        "again_p_value": p_value(took["again"], unknown),
    }


def main() -> None:
    options = PARSER.parse()
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(measure(options.probes, Path(folder)))
    write_json(options.out, {**figures, "load_average": os.getloadavg()})


if __name__ == "__main__":
    main()
