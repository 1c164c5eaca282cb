"""Warm-up: draw an image, run every batch size some times, measure the steps, choose the batch cap.

A worker reports ready only afterwards, so its first request is as fast as its thousandth.
"""

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image as PillowImage

from t2i_policy.image_size import ImageSize
from t2i_policy.level import Level
from t2i_runtime.drawing import PLAIN, Drawing, ScaledAdapter
from t2i_runtime.errors import Violation
from t2i_worker.device_errors import is_device_lost, is_out_of_memory
from t2i_worker.engine.batching import (
    BATCH_SIZES,
    MIN_GAIN,
    SizeTimes,
    WarmUpTimes,
    choose_batch_cap,
    fill_step_times,
    measure_step_cost,
)
from t2i_worker.engine.meeting import DenoiserCall, SignatureReader, merge_calls
from t2i_worker.engine.noise_scheduler import StepTaken
from t2i_worker.engine.saved_calls import check_savings
from t2i_worker.engine.speedups import capture_if_cuda, speed_up
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.errors import JobInvalid, ModelUnsupported
from t2i_worker.images import encode_image
from t2i_worker.input_images import NO_PICTURES, ComponentPicture, DecodedImages
from t2i_worker.jobs import AdapterFacts, Job
from t2i_worker.pipelines import LoadedPipeline, SpeedOptions
from t2i_worker.pipelines.active_parts import PLAIN_MODEL
from t2i_worker.pipelines.device_memory import fits_beside

log = logging.getLogger(__name__)
REPETITIONS = 5
FURTHER_TIMES = 3  # repetitions for further sizes
FURTHER_LIMIT_S = 120.0
WARM_UP_STEPS = 2
NO_SPEEDUPS = SpeedOptions()


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What one image showed: the denoiser's calls, the noise scheduler's steps, a latent's size, what decoding took."""

    calls: list[Mapping[str, Any]]
    scheduler_steps: int
    latent_bytes: int
    decode_s: float
    size: ImageSize
    decode_bytes: float


def warm_up(
    pipeline: LoadedPipeline,
    guidance_scale: float,
    max_batch: int,
    progress: Callable[[str], None],
    wanted: SpeedOptions = NO_SPEEDUPS,
    sizes: Sequence[ImageSize] = (),
) -> WarmUpTimes:
    """Double the batch size until it no longer pays or no longer fits; then the same for each further size.

    Raises:
        ModelUnsupported: the stock pipeline draws nothing from a prompt, or not at one of the sizes, or without steps.
    """
    default = ImageSize(pipeline.width, pipeline.height)
    _draw_first(pipeline, guidance_scale, default, "model.width and model.height")
    drawn = _draw(pipeline, guidance_scale, default)
    order = getattr(pipeline.stock.scheduler, "order", 1)
    calls_per_step = len(drawn.calls) / drawn.scheduler_steps * order
    calls = _calls_of_a_step(pipeline, drawn)
    with torch.inference_mode():
        speed_up(pipeline, calls, wanted)
        step_s = _measure(pipeline, drawn, max_batch, progress)
        cap = choose_batch_cap(step_s)
        if capture_if_cuda(pipeline, calls, cap, wanted):
            step_s = _measure(pipeline, drawn, cap, progress)
    filled = fill_step_times(step_s, cap)
    others = _measure_others(pipeline, guidance_scale, max_batch, progress, sizes=sizes, default_s=filled)
    return WarmUpTimes(cap, filled, drawn.decode_s, calls_per_step, drawn.latent_bytes, tuple(others))


def _measure_others(
    pipeline: LoadedPipeline,
    guidance_scale: float,
    max_batch: int,
    progress: Callable[[str], None],
    *,
    sizes: Sequence[ImageSize],
    default_s: Sequence[float],
) -> Iterator[SizeTimes]:
    """Draw an image of each size, and measure its steps. Once that took FURTHER_LIMIT_S together, sizes that come later
    are measured once and alone, and never share a forward. The pool says that it serves them, so none is left out.
    """
    began_s = time.monotonic()
    for size in sizes:
        try:
            drawn = _draw_first(pipeline, guidance_scale, size, "model.sizes")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise ModelUnsupported(f"model.sizes: an image of {size} pixels does not fit into memory") from error
        if time.monotonic() - began_s > FURTHER_LIMIT_S:
            progress(f"{size}: measured once and alone, as {FURTHER_LIMIT_S:.0f} s have passed")
            step_s = _measure(pipeline, drawn, 1, progress, 1)
        else:
            step_s = _measure(pipeline, drawn, max_batch, progress, FURTHER_TIMES)
        cap = choose_batch_cap(step_s)
        yield SizeTimes(size, measure_step_cost(step_s, default_s), cap, list(fill_step_times(step_s, cap)))


def _draw_first(pipeline: LoadedPipeline, guidance_scale: float, size: ImageSize, field: str) -> _Drawn:
    """The first image of a size: it compiles, allocates, and shows whether the engine can serve this at all."""
    name = type(pipeline.stock).__name__
    try:
        drawn = _draw(pipeline, guidance_scale, size)
    except Exception as error:
        if is_device_lost(error, pipeline.device) or is_out_of_memory(error):
            raise
        raise ModelUnsupported(f"{field}: {name} draws no image: {type(error).__name__}: {error}") from error
    if not drawn.calls or not drawn.scheduler_steps:
        raise ModelUnsupported(f"{name} draws without steps that the engine could batch")
    if drawn.size != size:
        raise ModelUnsupported(f"{field}: {name} draws {drawn.size} instead of {size} pixels")
    return drawn


def _measure(
    pipeline: LoadedPipeline, drawn: _Drawn, max_batch: int, progress: Callable[[str], None], times: int = REPETITIONS
) -> Mapping[int, float]:
    """Seconds of a step by batch size."""
    order, calls = getattr(pipeline.stock.scheduler, "order", 1), _calls_of_a_step(pipeline, drawn)
    step_s: dict[int, float] = {}
    for size in (size for size in BATCH_SIZES if size <= max_batch):
        pipeline.memory.begin()
        room_bytes = pipeline.memory.room_bytes()
        try:
            took_s = order * sum(_time_call(pipeline, call, size, times) for call in calls)
        except (RuntimeError, MemoryError) as error:
            if not step_s or is_device_lost(error, pipeline.device):
                raise  # not even one request fits, or nothing works any more
            log.warning("batch size %d does not fit: %s", size, error)
            break
        if step_s and not fits_beside(pipeline.memory.taken_bytes(), drawn.decode_bytes, room_bytes):
            log.warning("batch size %d leaves no memory to decode an image beside it", size)
            break
        step_s[size] = took_s
        progress(f"{drawn.size}, batch size {size}: {1e3 * step_s[size]:.1f} ms a step")
        # Stop here, because `choose_batch_cap` would not take a larger size, and each takes time to measure.
        if size > 1 and size / step_s[size] < MIN_GAIN * (size // 2) / step_s[size // 2]:
            break
    return step_s


def _calls_of_a_step(pipeline: LoadedPipeline, drawn: _Drawn) -> list[DenoiserCall]:
    reader = SignatureReader(pipeline.denoiser.shared)
    return [reader.read(call) for call in drawn.calls[-max(1, len(drawn.calls) // drawn.scheduler_steps) :]]


@torch.inference_mode()
def _time_call(pipeline: LoadedPipeline, call: DenoiserCall, size: int, times: int) -> float:
    merged = merge_calls([call] * size, pipeline.denoiser.shared)
    took_s = []
    for _ in range(times + 1):
        began_s = time.perf_counter()
        pipeline.denoiser.forward(merged, call.parts)
        pipeline.synchronize()
        took_s.append(time.perf_counter() - began_s)
    return statistics.median(took_s[1:])


def try_adapters(
    pipeline: LoadedPipeline,
    adapters: Sequence[AdapterFacts],
    guidance_scale: float,
    progress: Callable[[str], None],
) -> None:
    """Draw an image with each adapter, and tell what it costs.

    Raises:
        ModelUnsupported: names the adapter that draws nothing.
    """
    size = ImageSize(pipeline.width, pipeline.height)
    for one in adapters:
        used = (ScaledAdapter(one.name, one.scale or 1.0),)
        try:
            calls = _draw(pipeline, guidance_scale, size, Drawing(adapters=used)).calls
        except Exception as error:
            if is_device_lost(error, pipeline.device) or is_out_of_memory(error):
                raise
            reason = f"{type(pipeline.stock).__name__} draws no image with it: {type(error).__name__}: {error}"
            raise ModelUnsupported(f"model.adapters[{one.name!r}]: {reason}") from error
        plain, adapted = [
            _time_call(pipeline, SignatureReader(pipeline.denoiser.shared, active).read(calls[-1]), 1, REPETITIONS)
            for active in (PLAIN_MODEL, pipeline.denoiser.parts_for(Drawing(adapters=used), NO_PICTURES))
        ]
        progress(f"adapter {one.name}: a step takes {adapted / plain:.2f} times as long with it")


def try_components(pipeline: LoadedPipeline, guidance_scale: float, progress: Callable[[str], None]) -> None:
    """Draw an image with each ControlNet and each IP-Adapter, and tell what it costs.

    Raises:
        ModelUnsupported: names the component that draws nothing.
    """
    gray = PillowImage.new("RGB", (pipeline.width, pipeline.height), "gray")
    own = pipeline.sample_images()
    tried = {name: replace(NO_PICTURES, control=ComponentPicture(name, gray, 1.0)) for name in pipeline.controlled}
    tried |= {name: replace(own, ip_adapter=ComponentPicture(name, gray, 1.0)) for name in pipeline.shown}
    for name, images in tried.items():
        try:
            _time_draw(pipeline, guidance_scale, images)
            took_s = _time_draw(pipeline, guidance_scale, images)
        except Exception as error:
            if is_device_lost(error, pipeline.device) or is_out_of_memory(error):
                raise
            kind = type(pipeline.stock_for(images)).__name__
            reason = f"{kind} draws no image with it: {type(error).__name__}: {error}"
            raise ModelUnsupported(f"model.components[{name!r}]: {reason}"[:500]) from error
        more_s = took_s - _time_draw(pipeline, guidance_scale, None)
        progress(f"component {name}: a step takes about {1e3 * more_s / WARM_UP_STEPS:.0f} ms more with it")


def _time_draw(pipeline: LoadedPipeline, guidance_scale: float, images: DecodedImages | None) -> float:
    began_s = time.perf_counter()
    _draw(pipeline, guidance_scale, ImageSize(pipeline.width, pipeline.height), images=images)
    return time.perf_counter() - began_s


def _draw(
    pipeline: LoadedPipeline,
    guidance_scale: float,
    asked: ImageSize,
    drawing: Drawing = PLAIN,
    images: DecodedImages | None = None,
) -> _Drawn:
    given = pipeline.sample_images(asked) if images is None else images
    parts = pipeline.denoiser.parts_for(drawing, given)
    pipeline.use_in_texts(drawing)
    calls: list[Mapping[str, Any]] = []
    sizes: list[int] = []
    ended_s = time.perf_counter()

    def denoise(arguments: Mapping[str, Any]) -> Any:
        nonlocal ended_s
        calls.append(arguments)
        output = pipeline.denoiser.forward(arguments, parts)
        pipeline.synchronize()
        pipeline.memory.begin()
        ended_s = time.perf_counter()
        return output

    def on_step(taken: StepTaken) -> None:
        sizes.append(taken.sample.nbytes)

    level = Level(0, WARM_UP_STEPS)
    job = Job("warm-up", "warm up", "", 0, guidance_scale, level, "png", size=asked, images=given, drawing=drawing)
    call = StockCall(pipeline, pipeline.arguments(job), denoise, on_step, stock=pipeline.stock_for(given))
    image = call.draw(0)[0]
    encode_image(image, "png")
    decode_s = time.perf_counter() - ended_s
    height, width = image.shape[:2]
    return _Drawn(
        calls,
        call.own.calls,
        sizes[0] if sizes else 0,
        decode_s,
        ImageSize(width, height),
        pipeline.memory.taken_bytes(),
    )


def make_schedule(pipeline: LoadedPipeline, level: Level) -> None:
    """Begin an image of this level's schedule, up to the first call of the denoiser.

    Raises:
        JobInvalid: the noise scheduler makes no such schedule, or the model cannot draw at such a level.
    """

    def stop(_: Mapping[str, Any]) -> None:
        raise _ScheduleMade

    plain = replace(level, skipped_steps=0)
    job = Job("warm-up", "warm up", "", 0, 1.0, plain, "png", images=pipeline.sample_images())
    scheduler = pipeline.scheduler(job)
    check_savings(level, scheduler, pipeline.prompted_part)
    try:
        StockCall(pipeline, pipeline.arguments(job), stop, scheduler=scheduler).draw(0)
    except _ScheduleMade:
        return
    except (JobInvalid, ValueError, TypeError) as error:  # each pipeline refuses a sampler in its own way
        if not level.solver:
            raise
        sentence = f"this model's pipeline makes no schedule with {level.solver} ({type(scheduler).__name__})"
        raise JobInvalid([Violation("level.solver", f"{sentence}; take another solver, or none")]) from error


class _ScheduleMade(Exception):
    """The first call of the denoiser came."""
