"""The same arrivals, joined to a batch at every step, or batched statically."""

import asyncio
import statistics
import time
from typing import Any

import numpy as np
import torch

from bench.engine.rig import BATCH, EngineRig, draw
from bench.kit.output import say
from t2i_scenes.sampling import Resume
from t2i_worker.engine.side_threads import in_own_thread
from t2i_worker.images import encode_image

LOAD = 0.7


async def compare_joining(rig: EngineRig, count: int) -> dict[str, Any]:
    """P95 of the same Poisson arrivals of mixed levels, joined by step or batched statically."""
    rng = np.random.default_rng(11)
    skips = [int(rng.choice([0, *rig.skips])) for _ in range(count)]
    mean_steps = statistics.mean(rig.steps - skip for skip in skips)
    step_s = rig.times.step_s[min(BATCH, len(rig.times.step_s)) - 1]
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
