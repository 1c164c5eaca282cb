"""Warm-up: run every batch size some times, measure the steps, choose the batch cap.

A worker reports ready only afterwards, so its first request is as fast as its thousandth.
"""

import logging
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from t2i_worker.device_errors import is_device_lost
from t2i_worker.engine.batching import BATCH_SIZES, MIN_GAIN, choose_batch_cap, fill_step_times
from t2i_worker.images import encode_image
from t2i_worker.pipelines import Conditions, PipelineAdapter, stack_conditions

log = logging.getLogger(__name__)
REPETITIONS = 5


@dataclass(frozen=True, slots=True)
class WarmUpTimes:
    """`step_s[b - 1]` is the time of one step at batch size b, `fixed_s` the time to decode and encode one image."""

    batch_cap: int
    step_s: tuple[float, ...]
    fixed_s: float


def warm_up(
    adapter: PipelineAdapter, guidance_scale: float, max_batch: int, progress: Callable[[str], None]
) -> WarmUpTimes:
    """Double the batch size until it no longer pays or no longer fits."""
    with torch.inference_mode():
        conditions = adapter.encode("warm up", "", guidance_scale)
        step_s: dict[int, float] = {}
        for size in (size for size in BATCH_SIZES if size <= max_batch):
            try:
                step_s[size] = _time_step(adapter, conditions, size)
            except (RuntimeError, MemoryError) as error:
                if not step_s or is_device_lost(error, adapter.device):
                    raise  # not even one request fits, or nothing works any more
                log.warning("batch size %d does not fit: %s", size, error)
                break
            progress(f"batch size {size}: {1e3 * step_s[size]:.1f} ms a step")
            # Stop here, because `choose_batch_cap` would not take a larger size, and each takes time to measure.
            if size > 1 and size / step_s[size] < MIN_GAIN * (size // 2) / step_s[size // 2]:
                break
        cap = choose_batch_cap(step_s)
        return WarmUpTimes(cap, fill_step_times(step_s, cap), _time_fixed(adapter))


def _time_step(adapter: PipelineAdapter, conditions: Conditions, size: int) -> float:
    stacked = stack_conditions([conditions] * size)
    latents = torch.cat([adapter.initial_latent(seed) for seed in range(size)])
    timesteps = adapter.schedule(2, 0, 0).timesteps[:1].expand(size).to(adapter.device)
    times = []
    for _ in range(REPETITIONS + 1):
        began_s = time.perf_counter()
        adapter.predict(latents, timesteps, stacked)
        if adapter.device.type == "cuda":  # CUDA calls return before the device has finished
            torch.cuda.synchronize(adapter.device)
        times.append(time.perf_counter() - began_s)
    return statistics.median(times[1:])  # the first call compiles and allocates


def _time_fixed(adapter: PipelineAdapter) -> float:
    latent = adapter.initial_latent(0)
    times = []
    for _ in range(REPETITIONS):
        began_s = time.perf_counter()
        encode_image(adapter.decode(latent), "png")
        times.append(time.perf_counter() - began_s)
    return statistics.median(times)
