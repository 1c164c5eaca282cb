"""What is measured of one model. Rows are given out as they come, so that a killed run leaves what it has."""

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from t2i_cache.stores import MemoryStore
from t2i_policy.image_size import ImageSize
from t2i_policy.level import Level
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.engine.meeting import DenoiserCall, SignatureReader, merge_calls
from t2i_worker.engine.speedups import capture_if_cuda, speed_up
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.errors import where
from t2i_worker.images import encode_image
from t2i_worker.jobs import Job, ModelFacts
from t2i_worker.latents import LatentCache
from t2i_worker.pipelines import LoadedPipeline, SpeedOptions
from t2i_worker.pipelines.fp8 import quantize_to_fp8

Row = Mapping[str, Any]
PROMPT = "a red circle left of the blue square"
REPETITIONS = 3


@dataclass(frozen=True)
class GpuBenchPlan:
    """`sides` of square images in pixels; `steps` and `batch` of the comparison with the stock loop.

    `compiler` is torch's code generator, or one that makes no code.
    """

    sides: Sequence[int] = (1024, 512)
    batches: Sequence[int] = (1, 2, 4, 8)
    steps: int = 8
    batch: int = 4
    rounds: int = 2
    compiler: str = "inductor"


@dataclass
class ModelBench:
    """One model on its device. `give` takes the rows."""

    name: str
    pipeline: LoadedPipeline
    guidance: float
    plan: GpuBenchPlan
    give: Callable[[Row], None]
    mode: str = "eager"
    calls: dict[int, list[DenoiserCall]] = field(default_factory=dict)

    def run(self) -> None:
        """The most wanted first. A part that fails gives its error, and the next one goes on."""
        for side in self.plan.sides:
            self._try("image", partial(self._image, side))
        self._try("step", self._steps)
        self._try("images", self._against_stock)
        for mode, wanted in (("attention", SpeedOptions(attention=True)), ("compiled", SpeedOptions(compile=True))):
            self.mode = mode
            self._try(mode, partial(self._faster, wanted))
        self.mode = "graphs"
        self._try("graphs", self._graphs)
        self._try("images", self._against_stock)
        self.mode = "fp8"
        self._try("fp8", self._fp8)

    def _try(self, what: str, part: Callable[[], None]) -> None:
        try:
            with torch.inference_mode():
                part()
        except Exception as error:  # noqa: BLE001 - any part of a library may fail on a new device
            self._row("failed", part=what, error=f"{where(error)}: {str(error)[:200]}")

    def _row(self, what: str, **figures: Any) -> None:
        self.give({"model": self.name, "mode": self.mode, "what": what, **figures})

    def _job(self, seed: int, steps: int, side: int) -> Job:
        level, size = Level(0, steps), ImageSize(side, side)
        return Job(f"{self.name}-{seed}", PROMPT, "", seed, self.guidance, level, "png", size=size)

    def _image(self, side: int) -> None:
        """Shares of text, steps and VAE in an image that is drawn alone; the second one counts."""
        for last in (False, True):
            marks = _Marks(self.pipeline)
            call = StockCall(self.pipeline, self.pipeline.arguments(self._job(0, self.plan.steps, side)), marks.denoise)
            call.draw(0)
            ended_s = marks.now_s()
            reader = SignatureReader(self.pipeline.denoiser.shared)
            count = max(1, len(marks.calls) // self.plan.steps)
            self.calls[side] = [reader.read(one) for one in marks.calls[-count:]]
            if last:
                text_s, steps_s = marks.first_s - marks.began_s, marks.ended_s - marks.first_s
                self._row(
                    "image",
                    side=side,
                    steps=self.plan.steps,
                    text_ms=1e3 * text_s,
                    step_ms=1e3 * steps_s / self.plan.steps,
                    vae_ms=1e3 * (ended_s - marks.ended_s),
                )

    def _steps(self, batches: Sequence[int] | None = None) -> None:
        """Milliseconds of a step by batch size, without what lies between two steps."""
        for side, batch in itertools.product(self.calls, batches or self.plan.batches):
            merged = [merge_calls([call] * batch, self.pipeline.denoiser.shared) for call in self.calls[side]]
            times = [self._timed(merged) for _ in range(REPETITIONS + 1)][1:]
            self._row("step", side=side, batch=batch, ms=1e3 * statistics.median(times), peak_gib=self._peak_gib())

    def _timed(self, merged: Sequence[Mapping[str, Any]]) -> float:
        self.pipeline.synchronize()
        began_s = time.perf_counter()
        for arguments in merged:
            self.pipeline.denoiser.forward(arguments)
        self.pipeline.synchronize()
        return time.perf_counter() - began_s

    def _peak_gib(self) -> float:
        if self.pipeline.device.type != "cuda":
            return 0.0
        return torch.cuda.max_memory_allocated(self.pipeline.device) / 2**30

    def _against_stock(self) -> None:
        """Images a second: the stock pipeline batch after batch, and the engine with twice the batch in flight."""
        side, batch, count = self.plan.sides[0], self.plan.batch, self.plan.batch * self.plan.rounds
        began_s = time.perf_counter()
        for _ in range(self.plan.rounds):
            arguments = self.pipeline.arguments(self._job(0, self.plan.steps, side))
            arguments["prompt"] = [PROMPT] * batch
            drawn = self.pipeline.stock(generator=torch.Generator().manual_seed(0), **arguments)
            for image in drawn.images:
                encode_image((image * 255).round().astype("uint8"), "png")
        stock_s = time.perf_counter() - began_s
        engine_s = asyncio.run(self._served(count, side))
        self._row("images", side=side, batch=batch, stock_per_s=count / stock_s, engine_per_s=count / engine_s)

    async def _served(self, count: int, side: int) -> float:
        batch, steps = self.plan.batch, self.plan.steps
        facts = ModelFacts("bench", "", "", "", steps, self.guidance, side, side, latent_bytes=0, engine="diffusion")
        times = WarmUpTimes(batch, (1.0,) * batch, 1.0)
        engine = DiffusionEngine(self.pipeline, facts, times, LatentCache(MemoryStore(), facts), queue_cap=count)
        began_s = time.perf_counter()
        await asyncio.gather(*(self._drawn(engine, self._job(seed, steps, side)) for seed in range(count)))
        took_s = time.perf_counter() - began_s
        await engine.close()
        return took_s

    @staticmethod
    async def _drawn(engine: DiffusionEngine, job: Job) -> None:
        async for _ in engine.generate(job):
            pass

    def _faster(self, wanted: SpeedOptions) -> None:
        began_s = time.perf_counter()
        used = speed_up(self.pipeline, self.calls[self.plan.sides[0]], wanted, self.plan.compiler)
        self._row("applied", used=used, seconds=time.perf_counter() - began_s)
        if used:
            self._steps()

    def _graphs(self) -> None:
        began_s, used = time.perf_counter(), False
        for calls in self.calls.values():
            used = capture_if_cuda(self.pipeline, calls, max(self.plan.batches), SpeedOptions(compile=True)) or used
        self._row("applied", used=["graphs"] if used else [], seconds=time.perf_counter() - began_s)
        if used:
            self._steps()

    def _fp8(self) -> None:
        """Last, because it changes the weights for good."""
        self.pipeline.denoiser.graphs = None
        quantize_to_fp8(self.pipeline.denoiser.module, self.pipeline.device)
        self._steps()


class _Marks:
    """When an image's parts began and ended, on the device."""

    def __init__(self, pipeline: LoadedPipeline) -> None:
        self.calls: list[Mapping[str, Any]] = []
        self._pipeline = pipeline
        self.began_s = self.first_s = self.ended_s = self.now_s()

    def now_s(self) -> float:
        self._pipeline.synchronize()
        return time.perf_counter()

    def denoise(self, arguments: Mapping[str, Any]) -> Any:
        if not self.calls:
            self.first_s = self.now_s()
        self.calls.append(arguments)
        output = self._pipeline.denoiser.forward(arguments)
        self.ended_s = self.now_s()
        return output


def rows_of(lines: Sequence[str]) -> Iterator[Row]:
    """The last line of a killed run may be cut."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue
