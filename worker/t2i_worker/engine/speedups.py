"""Ways to run the same denoiser faster. Each is tried at warm-up, and stays only if it agrees with the plain one.

A trial runs the recorded calls of one step and compares the outputs with those before. A way that raises, or that
differs by more than MAX_DIFFERENCE of the outputs' deviation, is undone. A line in the log says why. The plain model is
what stock diffusers runs, so a speed-up can cost time at the start but no image.

- attention: the fastest of the kernels that diffusers has for this device,
- compile: the repeated blocks by torch.compile; convolutions in channels-last order and CUDA graphs on a GPU.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from t2i_worker.device_errors import free_memory, is_device_lost, is_out_of_memory
from t2i_worker.engine.meeting import DenoiserCall, merge_calls
from t2i_worker.engine.row_buckets import bucket_of, buckets_up_to, last_row
from t2i_worker.errors import where
from t2i_worker.pipelines import LoadedPipeline, SpeedOptions
from t2i_worker.pipelines.cuda_graphs import Capture, cuda_capture

log = logging.getLogger(__name__)
#: Largest difference of outputs that counts as rounding, in parts of their standard deviation.
MAX_DIFFERENCE = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
MIN_ATTENTION_GAIN = 1.02
#: Kernels that need no download. Those that are not installed, or not for this device or model, raise and are left out.
CUDA_ATTENTION = ("_native_cudnn", "_native_flash", "_flash_3", "flash")
TIMED_RUNS = 3


@dataclass(frozen=True, slots=True)
class _Trial:
    name: str
    apply: Callable[[], object]
    undo: Callable[[], object]


def speed_up(
    pipeline: LoadedPipeline,
    calls: Sequence[DenoiserCall],
    wanted: SpeedOptions,
    compiler: str = "inductor",
    attention: Sequence[str] | None = None,
) -> list[str]:
    """Apply what is wanted and agrees; returns its names. `calls` are those of one step of an image."""
    if not wanted.attention and not wanted.compile:
        return []
    device = pipeline.device
    references = [pipeline.denoiser.forward(call.arguments) for call in calls]
    used: list[str] = []
    if wanted.attention:
        names = attention if attention is not None else CUDA_ATTENTION if device.type == "cuda" else ()
        used += _fastest_attention(pipeline, calls, references, names)
    if wanted.compile:
        if device.type == "cuda" and _agrees(pipeline, calls, references, order := _channels_last(pipeline)):
            used.append(order.name)
        used += _compiled_if_it_pays(pipeline, calls, references, compiler)
    return used


def _compiled_if_it_pays(
    pipeline: LoadedPipeline, calls: Sequence[DenoiserCall], references: Sequence[Any], compiler: str
) -> list[str]:
    """On a GPU, graphs take away what compiled code costs the CPU at each call; elsewhere it must pay by itself."""
    before_s, trial = _time(pipeline, calls), _compiled(pipeline.denoiser.module, compiler)
    if not _agrees(pipeline, calls, references, trial):
        return []
    if pipeline.device.type != "cuda" and _time(pipeline, calls) > before_s:
        trial.undo()
        log.warning("left out: %s: it is slower here", trial.name)
        return []
    return [trial.name]


def capture_graphs(pipeline: LoadedPipeline, calls: Sequence[DenoiserCall], cap: int, capture: Capture) -> int:
    """Capture the calls of a step alone, and in every bucket of rows up to a full batch; returns how many there are.

    The largest comes first: smaller ones find their memory in its pool.
    """
    graphs, shared = pipeline.denoiser.use_graphs(capture), pipeline.denoiser.shared
    for arguments in _to_capture(calls, cap, shared):
        try:
            graphs.capture(arguments)
        except Exception as error:
            if is_device_lost(error, pipeline.device):
                raise
            if not is_out_of_memory(error):
                graphs.drop_all()
                log.warning("no CUDA graphs of this model: %s", where(error))
                break
            free_memory()
            log.warning("no memory for a CUDA graph: such batches run without")
    return len(graphs)


def _to_capture(calls: Sequence[DenoiserCall], cap: int, shared: Collection[str]) -> Iterator[Mapping[str, Any]]:
    for call in calls:
        unit = last_row(call, shared)
        for bucket in buckets_up_to(cap * call.rows):
            yield merge_calls([unit] * bucket, shared)
        if bucket_of(call.rows) == call.rows:
            yield call.arguments


def capture_if_cuda(pipeline: LoadedPipeline, calls: Sequence[DenoiserCall], cap: int, wanted: SpeedOptions) -> bool:
    """Whether there are graphs now."""
    if not wanted.compile or pipeline.device.type != "cuda":
        return False
    count = capture_graphs(pipeline, calls, cap, cuda_capture(pipeline.device))
    log.info("in use: %d CUDA graphs", count)
    return count > 0


def _compiled(module: nn.Module, compiler: str) -> _Trial:
    """Blocks alone compile once for all of them, where the whole module takes minutes and breaks at each branch."""
    blocks = list(repeated_blocks(module))

    def compile_them() -> None:
        if not blocks:
            raise LookupError("the denoiser has no repeated blocks")
        for block in blocks:
            block.compile(backend=compiler)

    def undo() -> None:
        for block in blocks:
            block._compiled_call_impl = None

    return _Trial("compiled blocks", compile_them, undo)


def repeated_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Those that the model names, or else the members of its lists."""
    named = getattr(module, "_repeated_blocks", None) or ()
    lists = [child for child in module.children() if isinstance(child, nn.ModuleList)]
    if named:
        yield from (part for part in module.modules() if type(part).__name__ in named)
    else:
        yield from (part for one in lists for part in one)


def _channels_last(pipeline: LoadedPipeline) -> _Trial:
    vae = getattr(pipeline.stock, "vae", None)
    parts = [one for one in (pipeline.denoiser.module, vae) if isinstance(one, nn.Module)]

    def order(memory_format: torch.memory_format) -> None:
        for part in parts:
            part.to(memory_format=memory_format)

    return _Trial("channels last", lambda: order(torch.channels_last), lambda: order(torch.contiguous_format))


def _fastest_attention(
    pipeline: LoadedPipeline, calls: Sequence[DenoiserCall], references: Sequence[Any], names: Sequence[str]
) -> list[str]:
    module: Any = pipeline.denoiser.module
    best, best_s = "", _time(pipeline, calls) / MIN_ATTENTION_GAIN
    for name in names:
        trial = _Trial(f"attention {name}", partial(module.set_attention_backend, name), lambda: None)
        if _agrees(pipeline, calls, references, trial) and (took_s := _time(pipeline, calls)) < best_s:
            best, best_s = name, took_s
    if names and hasattr(module, "set_attention_backend"):
        module.set_attention_backend(best or "native")
    return [f"attention {best}"] if best else []


def _time(pipeline: LoadedPipeline, calls: Sequence[DenoiserCall]) -> float:
    """Seconds of one step."""
    took = []
    for _ in range(TIMED_RUNS):
        pipeline.synchronize()
        began_s = time.perf_counter()
        for call in calls:
            pipeline.denoiser.forward(call.arguments)
        pipeline.synchronize()
        took.append(time.perf_counter() - began_s)
    return min(took)


def _agrees(pipeline: LoadedPipeline, calls: Sequence[DenoiserCall], references: Sequence[Any], trial: _Trial) -> bool:
    """Apply it, run it, and undo it unless it agrees."""
    try:
        trial.apply()
        outputs = [pipeline.denoiser.forward(call.arguments) for call in calls]
        apart = max(map(difference, outputs, references))
    except Exception as error:
        trial.undo()
        if is_device_lost(error, pipeline.device):
            raise
        log.warning("left out: %s: %s", trial.name, where(error))
        return False
    if apart > MAX_DIFFERENCE.get(pipeline.dtype, 1e-3):
        trial.undo()
        log.warning("left out: %s: it differs from the plain model by %.1e", trial.name, apart)
        return False
    log.info("in use: %s, differs by %.1e", trial.name, apart)
    return True


def difference(output: Any, reference: Any) -> float:
    """The largest difference of two outputs, in parts of the reference's standard deviation."""
    pairs = zip(pytree.tree_leaves(output), pytree.tree_leaves(reference), strict=True)
    found = [_apart(one.float(), other.float()) for one, other in pairs if isinstance(one, Tensor)]
    return max(found, default=0.0)


def _apart(one: Tensor, other: Tensor) -> float:
    apart = float((one - other).abs().max() / other.std(correction=0).clamp_min(1e-12))
    return apart if apart == apart else float("inf")
