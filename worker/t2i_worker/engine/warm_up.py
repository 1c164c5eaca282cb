"""Warm-up: draw an image, run every batch size some times, measure the steps, choose the batch cap.

A worker reports ready only afterwards, so its first request is as fast as its thousandth.
"""

import logging
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from t2i_policy.level import Level
from t2i_worker.device_errors import is_device_lost, is_out_of_memory
from t2i_worker.engine.batching import BATCH_SIZES, MIN_GAIN, WarmUpTimes, choose_batch_cap, fill_step_times
from t2i_worker.engine.meeting import DenoiserCall, SignatureReader, merge_calls
from t2i_worker.engine.noise_scheduler import StepTaken
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.errors import ModelUnsupported
from t2i_worker.images import encode_image
from t2i_worker.jobs import ImageSize, Job
from t2i_worker.pipelines import LoadedPipeline

log = logging.getLogger(__name__)
REPETITIONS = 5
WARM_UP_STEPS = 2


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What one image showed: the denoiser's calls, the noise scheduler's steps, a latent's size, time after them."""

    calls: list[Mapping[str, Any]]
    scheduler_steps: int
    latent_bytes: int
    decode_s: float
    size: ImageSize


def warm_up(
    pipeline: LoadedPipeline, guidance_scale: float, max_batch: int, progress: Callable[[str], None]
) -> WarmUpTimes:
    """Double the batch size until it no longer pays or no longer fits.

    Raises:
        ModelUnsupported: the stock pipeline draws nothing from a prompt, or not at this size, or without steps.
    """
    _draw_first(pipeline, guidance_scale)
    drawn = _draw(pipeline, guidance_scale)
    order = getattr(pipeline.stock.scheduler, "order", 1)
    calls_per_step = len(drawn.calls) / drawn.scheduler_steps * order
    reader = SignatureReader(pipeline.denoiser.shared)
    last = drawn.calls[-max(1, len(drawn.calls) // drawn.scheduler_steps) :]  # those of one step
    with torch.inference_mode():
        step_s = _measure(pipeline, [reader.read(call) for call in last], order, max_batch, progress)
    cap = choose_batch_cap(step_s)
    return WarmUpTimes(cap, fill_step_times(step_s, cap), drawn.decode_s, calls_per_step, drawn.latent_bytes)


def _draw_first(pipeline: LoadedPipeline, guidance_scale: float) -> None:
    """The first image: it compiles, allocates, and shows whether the engine can serve this pipeline at all."""
    name = type(pipeline.stock).__name__
    try:
        drawn = _draw(pipeline, guidance_scale)
    except Exception as error:
        if is_device_lost(error, pipeline.device) or is_out_of_memory(error):
            raise
        raise ModelUnsupported(f"{name} draws no image: {type(error).__name__}: {error}") from error
    if not drawn.calls or not drawn.scheduler_steps:
        raise ModelUnsupported(f"{name} draws without steps that the engine could batch")
    if drawn.size != (pipeline.width, pipeline.height):
        sizes = f"{drawn.size.width}x{drawn.size.height} instead of {pipeline.width}x{pipeline.height}"
        raise ModelUnsupported(f"model.width and model.height: {name} draws {sizes} pixels")


def _measure(
    pipeline: LoadedPipeline, calls: list[DenoiserCall], order: int, max_batch: int, progress: Callable[[str], None]
) -> Mapping[int, float]:
    """Seconds of a step by batch size."""
    step_s: dict[int, float] = {}
    for size in (size for size in BATCH_SIZES if size <= max_batch):
        try:
            step_s[size] = order * sum(_time_call(pipeline, call, size) for call in calls)
        except (RuntimeError, MemoryError) as error:
            if not step_s or is_device_lost(error, pipeline.device):
                raise  # not even one request fits, or nothing works any more
            log.warning("batch size %d does not fit: %s", size, error)
            break
        progress(f"batch size {size}: {1e3 * step_s[size]:.1f} ms a step")
        # Stop here, because `choose_batch_cap` would not take a larger size, and each takes time to measure.
        if size > 1 and size / step_s[size] < MIN_GAIN * (size // 2) / step_s[size // 2]:
            break
    return step_s


def _time_call(pipeline: LoadedPipeline, call: DenoiserCall, size: int) -> float:
    merged = merge_calls([call] * size, pipeline.denoiser.shared)
    times = []
    for _ in range(REPETITIONS + 1):
        began_s = time.perf_counter()
        pipeline.denoiser.forward(merged)
        synchronize(pipeline.device)
        times.append(time.perf_counter() - began_s)
    return statistics.median(times[1:])


def synchronize(device: torch.device) -> None:
    """Wait for the device: CUDA calls return before it has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _draw(pipeline: LoadedPipeline, guidance_scale: float) -> _Drawn:
    calls: list[Mapping[str, Any]] = []
    sizes: list[int] = []
    ended_s = time.perf_counter()

    def denoise(arguments: Mapping[str, Any]) -> Any:
        nonlocal ended_s
        calls.append(arguments)
        output = pipeline.denoiser.forward(arguments)
        synchronize(pipeline.device)
        ended_s = time.perf_counter()
        return output

    def on_step(taken: StepTaken) -> None:
        sizes.append(taken.sample.nbytes)

    level = Level(0, WARM_UP_STEPS)
    job = Job("warm-up", "warm up", "", 0, guidance_scale, level, "png")
    call = StockCall(pipeline, pipeline.arguments(job), denoise, on_step)
    image = call.draw(0)[0]
    encode_image(image, "png")
    decode_s = time.perf_counter() - ended_s
    height, width = image.shape[:2]
    return _Drawn(calls, call.own.calls, sizes[0] if sizes else 0, decode_s, ImageSize(width, height))


def make_schedule(pipeline: LoadedPipeline, num_inference_steps: int) -> None:
    """Begin an image of so many steps, up to the first call of the denoiser.

    Raises:
        JobInvalid: the model's noise scheduler makes no such schedule.
    """

    def stop(_: Mapping[str, Any]) -> None:
        raise _ScheduleMade

    job = Job("warm-up", "warm up", "", 0, 1.0, Level(0, num_inference_steps), "png")
    try:
        StockCall(pipeline, pipeline.arguments(job), stop).draw(0)
    except _ScheduleMade:
        return


class _ScheduleMade(Exception):
    """The first call of the denoiser came."""
