"""The worker's engine against a bare diffusers loop: `make bench-engine` -> build/bench/engine.json.

Everything in one process and one run, rounds in alternation, on the embedded model. Keys:

    loop_ratio                images/s of the saturated engine / images/s of a bare loop over full batches (>= 0.95)
    k_speedup_ratio_min       least of (T(0) / T(K)) / (N / (N - K)), text, fetch, decode and png counted (>= 0.92)
    batch4_gain               images/s at four in the batch / at one
    p95_ratio_step_vs_static  P95 latency of step-level joining / of static batches, same arrivals at load 0.7 (<= 0.85)
    batch_invariance_max_abs  largest difference of final latents, alone against in mixed batches
    images_equal_percent      share of those images that are equal byte for byte
    loop_ratio_all_cores      loop_ratio with as many intra-op threads as cores: nothing is left for text and images
"""

import argparse
import asyncio
import itertools
import os
import statistics
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.kit.arguments import BenchParser
from bench.kit.output import say, write_json
from bench.kit.places import example_spec
from t2i_cache.stores.memory import MemoryStore
from t2i_policy.level import Level
from t2i_scenes import caption, sample_scene
from t2i_scenes.sampling import Resume, ScenesModel
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.engine.request import Denoised, Running, StepEvent
from t2i_worker.engine.step_loop import StepLoop
from t2i_worker.engine.warming import Warmth, warm_up
from t2i_worker.images import encode_image
from t2i_worker.jobs import Finished, Job, Sink, Source, Tally
from t2i_worker.latents import LatentShelf
from t2i_worker.one_thread import in_own_thread
from t2i_worker.pipelines import PipelineAdapter, load_adapter
from t2i_worker.starting.diffusion import to_facts
from t2i_worker.starting.finding import find_model

BATCH, LOAD = 4, 0.7
ids = itertools.count()
PARSER = BenchParser(__doc__, "engine", {"rounds": 1, "batches": 1, "arrivals": 8, "compared": 4})
PARSER.add_argument("--threads", type=int, default=1, help="intra-op threads, as a worker of the example pool has")
PARSER.add_argument("--rounds", type=int, default=5)
PARSER.add_argument("--batches", type=int, default=12, help="full batches of a round")
PARSER.add_argument("--compared", type=int, default=24, help="requests drawn both alone and in mixed batches")
PARSER.add_argument("--arrivals", type=int, default=120, help="requests that join or wait for a batch")


class EngineRig:
    """The loaded model, its measured warmth, and captions."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        torch.set_num_threads(threads)
        self.spec = example_spec("pool-scenes")
        model = self.spec.model
        folder = find_model(model, Path("models"))
        self.adapter: PipelineAdapter = load_adapter(folder, model.precision, model.width, model.height, "cpu")
        self.warmth = warm_up(self.adapter, model.guidance_scale, 8, say)
        self.bare = ScenesModel.load(folder)
        self.steps = model.num_inference_steps
        self.skips = [level.skipped_steps for level in self.spec.ladder.levels if level.needs_latent]
        rng = np.random.default_rng(3)
        self.captions = [caption(sample_scene(rng), rng) for _ in range(256)]

    def engine(self, cap: int, queue_cap: int | None = None) -> DiffusionEngine:
        step_s = (self.warmth.step_s + self.warmth.step_s[-1:] * cap)[:cap]
        facts = to_facts(self.adapter, self.spec, "bench")
        shelf = LatentShelf(MemoryStore(), facts)
        return DiffusionEngine(self.adapter, facts, Warmth(cap, step_s, self.warmth.fixed_s), shelf, queue_cap)

    def job(self, skipped: int = 0, sink: bool = False) -> Job:
        number = next(ids)
        return Job(
            request_id=str(number),
            prompt=self.captions[number % len(self.captions)],
            negative_prompt="",
            seed=number,
            guidance_scale=self.spec.model.guidance_scale,
            level=Level(skipped, self.steps),
            image_format="png",
            source=Source("bench", "entry", (skipped,)) if skipped else None,
            sink=Sink("bench", "entry", tuple(self.skips), np.ones(4, np.float32)) if sink else None,
        )


async def draw(engine: DiffusionEngine, job: Job) -> Finished:
    last = None
    async for event in engine.generate(job):
        last = event
    assert isinstance(last, Finished)
    assert last.served == job.level, f"asked {job.level}, served {last.served}"
    return last


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


async def timed(work: Coroutine[Any, Any, Finished]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def compare_joining(rig: EngineRig, count: int) -> dict[str, Any]:
    """P95 of the same Poisson arrivals of mixed levels, joined by step or batched statically."""
    rng = np.random.default_rng(11)
    skips = [int(rng.choice([0, *rig.skips])) for _ in range(count)]
    mean_steps = statistics.mean(rig.steps - skip for skip in skips)
    step_s = rig.warmth.step_s[min(BATCH, len(rig.warmth.step_s)) - 1]
    rate = LOAD * BATCH / (mean_steps * step_s)
    arrivals = np.cumsum(rng.exponential(1 / rate, count)).tolist()
    say(f"{count} arrivals at {rate:.1f}/s, {mean_steps:.1f} steps each on average")
    by_step = await joined_by_step(rig, arrivals, skips)
    static = await batched(rig, arrivals, skips)
    percentile = [float(np.percentile(values, 95)) for values in (by_step, static)]
    return {
        "p95_ratio_step_vs_static": percentile[0] / percentile[1],
        "p95_step_s": percentile[0],
        "p95_static_s": percentile[1],
        "p50_step_s": float(np.median(by_step)),
        "p50_static_s": float(np.median(static)),
        "arrivals_rps": rate,
    }


async def joined_by_step(rig: EngineRig, arrivals: list[float], skips: list[int]) -> list[float]:
    engine = rig.engine(BATCH, queue_cap=len(arrivals))  # the comparison is about joining, not about refusing
    await draw(engine, rig.job(sink=True))
    began = time.perf_counter()

    async def one(at_s: float, skip: int) -> float:
        await asyncio.sleep(max(0.0, began + at_s - time.perf_counter()))
        await draw(engine, rig.job(skip))
        return time.perf_counter() - began - at_s

    latencies = await asyncio.gather(*(one(at, skip) for at, skip in zip(arrivals, skips, strict=True)))
    await engine.close()
    return list(latencies)


async def batched(rig: EngineRig, arrivals: list[float], skips: list[int]) -> list[float]:
    """Latencies of static batches: whoever waits, up to BATCH, runs together until the longest is done."""
    began = time.perf_counter()
    latencies: list[float] = []
    at = 0
    while at < len(arrivals):
        await asyncio.sleep(max(0.0, began + arrivals[at] - time.perf_counter()))
        now = time.perf_counter() - began
        batch = [n for n in range(at, min(at + BATCH, len(arrivals))) if arrivals[n] <= now] or [at]
        await in_own_thread(run_static, rig, [skips[n] for n in batch])
        done = time.perf_counter() - began
        latencies += [done - arrivals[n] for n in batch]
        at += len(batch)
    return latencies


def run_static(rig: EngineRig, skips: list[int]) -> None:
    """One static batch: as many steps as its longest member, png included."""
    torch.set_num_threads(rig.threads)
    captions = rig.captions[: len(skips)]
    latents = rig.bare.noise(range(len(skips)))
    drawn = rig.bare.draw(captions, [], num_inference_steps=rig.steps, resume=Resume(min(skips), latents))
    for image in drawn.images:
        encode_image(image, "png")


def check_invariance(rig: EngineRig, count: int) -> dict[str, Any]:
    """Final latents of the same requests alone and in a loop of mixed levels."""
    levels = [Level(0, rig.steps), Level(0, rig.steps // 2), Level(0, rig.steps // 3 or 1), Level(0, rig.steps)]
    asked = [(n, levels[n % len(levels)]) for n in range(count)]
    mixed = run_loop(rig, asked, BATCH)
    alone = run_loop(rig, asked, 1)
    worst = max(float((one - other).abs().max()) for one, other in zip(mixed, alone, strict=True))
    equal = [
        np.array_equal(rig.adapter.decode(one), rig.adapter.decode(other))
        for one, other in zip(mixed, alone, strict=True)
    ]
    return {"batch_invariance_max_abs": worst, "images_equal_percent": 100 * sum(equal) / len(equal)}


def run_loop(rig: EngineRig, asked: list[tuple[int, Level]], cap: int) -> list[torch.Tensor]:
    ended = threading.Semaphore(0)

    def deliver_all(deliveries: Any) -> None:
        for _, event in deliveries:
            if isinstance(event, Denoised):
                ended.release()

    loop = StepLoop(rig.adapter, cap, rig.warmth.step_s, deliver_all, Tally())
    requests = [to_running(rig, seed, level, lambda _event: None) for seed, level in asked]
    loop.start()
    for request in requests:
        loop.submit(request)
    for _ in requests:
        assert ended.acquire(timeout=120)
    loop.stop(10)
    return [request.latent for request in requests]


def to_running(rig: EngineRig, seed: int, level: Level, deliver: Callable[[StepEvent], None]) -> Running:
    schedule = rig.adapter.schedule(level.num_inference_steps, 0, seed)
    return Running(
        latent=rig.adapter.initial_latent(seed) * schedule.initial_scale,
        step=0,
        num_steps=level.num_inference_steps,
        schedule=schedule,
        conditions=rig.adapter.encode(rig.captions[seed], "", rig.spec.model.guidance_scale),
        deliver=deliver,
    )


async def run(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    rig = await in_own_thread(EngineRig, options.threads)
    figures: dict[str, Any] = {"num_inference_steps": rig.steps, "threads": options.threads, "batch": BATCH}
    figures |= await in_own_thread(check_invariance, rig, options.compared)
    figures |= await compare_skips(rig, options.rounds)
    figures |= await compare_loops(rig, options.rounds, options.batches)
    figures |= await compare_joining(rig, options.arrivals)
    rig.threads = os.cpu_count() or 1
    torch.set_num_threads(rig.threads)
    all_cores = await compare_loops(rig, min(3, options.rounds), options.batches)
    return {
        **figures,
        "loop_ratio_all_cores": all_cores["loop_ratio"],
        "step_ms": [1e3 * seconds for seconds in rig.warmth.step_s],
    }


def main() -> None:
    options = PARSER.parse()
    write_json(options.out, asyncio.run(run(options)))


if __name__ == "__main__":
    main()
