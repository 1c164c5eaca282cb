"""The worker's engine against a bare diffusers loop: `make bench-engine` -> build/bench/engine.json.

Everything in one process and one run, rounds in alternation, on the embedded model. Keys:

    loop_ratio                images/s of the saturated engine / images/s of a bare loop over full batches (>= 0.95)
    k_speedup_ratio_min       least of (T(0) / T(K)) / (N / (N - K)), text, fetch, decode and png counted (>= 0.92)
    batch4_gain               images/s at four in the batch / at one
    p95_ratio_step_vs_static  P95 latency of step-level joining / of static batches, same arrivals at load 0.7 (<= 0.85)
    batch_invariance_max_abs  largest difference of final latents, alone against in mixed batches
    images_equal_percent      share of those images that are equal byte for byte
    compute_beside_forecasts  time of exact requests, half of whose batch forecasts / with nobody beside (`forecasting`)
    forecast_step_cpu_ms      CPU of a forecast step
    lasting_threads           threads after a tenth of `--lasting` requests and after all
    lasting_rss_mib           resident memory then; lasting_used_mib: after the allocator gave back what was free
    loop_ratio_all_cores      loop_ratio with as many intra-op threads as cores: nothing is left for text and images
"""

import argparse
import asyncio
import itertools
import os
import statistics
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch

from bench.engine.forecasting import compare_forecasting
from bench.engine.joining import compare_joining
from bench.engine.lasting import count_leaks
from bench.engine.rig import BATCH, EngineRig, draw, timed
from bench.kit.arguments import BenchParser
from bench.kit.output import say, write_json
from t2i_policy.level import Level
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.pipeline_run import FROM_NOISE, DrawnImages, PipelineRun, SharedParts
from t2i_worker.engine.request import RunningRequest
from t2i_worker.engine.side_threads import in_own_thread
from t2i_worker.engine.step_loop import StepLoop
from t2i_worker.images import encode_image
from t2i_worker.jobs import Tally
from t2i_worker.latents import StartLatent

PARSER = BenchParser(__doc__, "engine", quick={"rounds": 1, "batches": 1, "arrivals": 8, "compared": 4, "lasting": 40})
PARSER.add_argument("--threads", type=int, default=1, help="intra-op threads, as a worker of the example pool has")
PARSER.add_argument("--rounds", type=int, default=5)
PARSER.add_argument("--batches", type=int, default=12, help="full batches of a round")
PARSER.add_argument("--compared", type=int, default=24, help="requests drawn both alone and in mixed batches")
PARSER.add_argument("--arrivals", type=int, default=120, help="requests that join or wait for a batch")
PARSER.add_argument("--lasting", type=int, default=2000, help="requests over which threads and memory are counted")


async def saturated(rig: EngineRig, cap: int, images: int) -> float:
    """Images a second with twice the batch in flight."""
    engine = rig.engine(cap)
    left = itertools.count(1)

    async def client() -> None:
        while next(left) <= images:
            await draw(engine, rig.job())

    await draw(engine, rig.job())
    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(2 * cap)))
    took_s = time.perf_counter() - began
    await engine.close()
    return images / took_s


def bare_batches(rig: EngineRig, batches: int) -> float:
    """Images a second of the bare loop, png included, batch after batch."""
    torch.set_num_threads(rig.threads)
    began = time.perf_counter()
    for number in range(batches):
        captions = [rig.captions[(number * BATCH + n) % len(rig.captions)] for n in range(BATCH)]
        drawn = rig.bare.draw(captions, range(BATCH), num_inference_steps=rig.steps)
        for image in drawn.images:
            encode_image(image, "png")
    return batches * BATCH / (time.perf_counter() - began)


async def compare_loops(rig: EngineRig, rounds: int, batches: int) -> dict[str, Any]:
    """Paired rounds of engine and bare loop; medians of the ratios."""
    ratios, gains, engine_rates, bare_rates = [], [], [], []
    for number in range(rounds):
        bare = await in_own_thread(bare_batches, rig, batches)
        full = await saturated(rig, BATCH, batches * BATCH)
        single = await saturated(rig, 1, 8)
        ratios.append(full / bare)
        gains.append(full / single)
        engine_rates.append(full)
        bare_rates.append(bare)
        say(f"round {number + 1}/{rounds}: engine {full:.2f}, bare {bare:.2f}, one at a time {single:.2f} images/s")
    return {
        "loop_ratio": statistics.median(ratios),
        "loop_ratio_rounds": ratios,
        "engine_images_per_s": statistics.median(engine_rates),
        "bare_images_per_s": statistics.median(bare_rates),
        "batch4_gain": statistics.median(gains),
    }


async def compare_skips(rig: EngineRig, rounds: int) -> dict[str, Any]:
    """One request at a time: time at K against the ideal, in paired rounds."""
    engine = rig.engine(1)
    await draw(engine, rig.job(sink=True))
    ratios: dict[int, list[float]] = {skip: [] for skip in rig.skips}
    for _ in range(rounds):
        exact_s = await timed(draw(engine, rig.job()))
        for skip in rig.skips:
            took_s = await timed(draw(engine, rig.job(skip)))
            ratios[skip].append((exact_s / took_s) / (rig.steps / (rig.steps - skip)))
    await engine.close()
    by_skip = {skip: statistics.median(values) for skip, values in ratios.items()}
    return {"k_speedup_ratio_min": min(by_skip.values()), "k_speedup_ratio": {str(k): r for k, r in by_skip.items()}}


def check_invariance(rig: EngineRig, count: int) -> dict[str, Any]:
    """Final latents and images of the same requests alone and in a loop of mixed levels."""
    steps = [rig.steps, rig.steps // 2, rig.steps // 3 or 1, rig.steps]
    levels = [Level(0, steps[number % len(steps)]) for number in range(count)]
    pairs = list(zip(draw_in_loop(rig, levels, BATCH), draw_in_loop(rig, levels, 1), strict=True))
    finals = [
        (mixed.kept[level.num_inference_steps], alone.kept[level.num_inference_steps])
        for (mixed, alone), level in zip(pairs, levels, strict=True)
    ]
    return {
        "batch_invariance_max_abs": max(float((one - other).abs().max()) for one, other in finals),
        "images_equal_percent": 100 * sum(mixed.files == alone.files for mixed, alone in pairs) / len(pairs),
    }


def draw_in_loop(rig: EngineRig, levels: list[Level], cap: int) -> list[DrawnImages]:
    """Through a step loop of its own; a request's place is its seed."""
    times = WarmUpTimes(cap, rig.times.step_s, rig.times.fixed_s)
    loop = StepLoop(rig.pipeline.denoiser, times, lambda _events: None, Tally())
    parts = SharedParts(rig.pipeline, loop)
    loop.start()
    with ThreadPoolExecutor(2 * cap) as threads:
        drawn = list(threads.map(lambda seed: draw_one(rig, parts, seed, levels[seed]), range(len(levels))))
    loop.stop(10)
    return drawn


def draw_one(rig: EngineRig, parts: SharedParts, seed: int, level: Level) -> DrawnImages:
    torch.set_num_threads(1)
    start: Future[StartLatent] = Future()
    start.set_result(FROM_NOISE)
    job = replace(rig.job(), prompt=rig.captions[seed], seed=seed, level=level)
    run = PipelineRun(parts, job, RunningRequest(level.num_inference_steps), start)
    run.keep = frozenset({level.num_inference_steps})
    return run.draw()


async def run(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    rig = await in_own_thread(EngineRig, options.threads)
    figures: dict[str, Any] = {"num_inference_steps": rig.steps, "threads": options.threads, "batch": BATCH}
    figures |= await in_own_thread(check_invariance, rig, options.compared)
    figures |= await compare_skips(rig, options.rounds)
    figures |= await compare_loops(rig, options.rounds, options.batches)
    figures |= await compare_joining(rig, options.arrivals)
    figures |= await compare_forecasting(rig, 3 * options.rounds)
    figures |= await count_leaks(rig, options.lasting)
    rig.threads = os.cpu_count() or 1
    torch.set_num_threads(rig.threads)
    all_cores = await compare_loops(rig, min(3, options.rounds), options.batches)
    return {
        **figures,
        "loop_ratio_all_cores": all_cores["loop_ratio"],
        "step_ms": [1e3 * seconds for seconds in rig.times.step_s],
    }


def main() -> None:
    options = PARSER.parse()
    write_json(options.out, asyncio.run(run(options)))


if __name__ == "__main__":
    main()
