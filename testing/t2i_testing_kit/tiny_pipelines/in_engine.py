"""A tiny model in the worker's engine, without server and store: what it draws alone, in a batch and resumed."""

import io
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from t2i_cache.stores import MemoryStore
from t2i_policy.level import Level
from t2i_testing_kit.tiny_pipelines.families import FAMILIES, in_any_size
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest, sample_image
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.engine.noise_scheduler import Start
from t2i_worker.engine.pipeline_run import PipelineRun, SharedParts
from t2i_worker.engine.request import RunningRequest
from t2i_worker.engine.step_loop import StepLoop
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.jobs import Job, ModelFacts, Tally
from t2i_worker.latents import LatentCache, StartLatent
from t2i_worker.pipelines import AdapterFile, LoadedPipeline, load_pipeline

WAIT_S = 120.0


@dataclass(frozen=True)
class ResumeFrom:
    """Enter `step` with this latent: a final one that is noised anew in the engine, the entering one in `resume`."""

    step: int
    latent: Tensor


@dataclass
class EngineRun:
    """One request in the engine. `final` and `pixels` are there when it has ended without `error`."""

    stock: PipelineRun
    running: RunningRequest
    steps: int
    error: Exception | None = None
    final: Tensor = field(init=False)
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = field(init=False)

    def run(self) -> None:
        torch.set_num_threads(1)  # as the engine's threads do; torch keeps it per thread, and sums depend on it
        try:
            drawn = self.stock.draw()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
            return
        self.final = drawn.kept[self.steps]
        self.pixels = np.asarray(Pillow.open(io.BytesIO(drawn.files[0])))


class TinyEngine:
    """`name` is one of `FAMILIES`. `batch_sizes` counts the forwards that ran so far."""

    def __init__(self, name: str, folder: Path, precision: str = "fp32", adapters: Sequence[AdapterFile] = ()) -> None:
        family = FAMILIES[name]
        self.family = family
        self.pipeline: LoadedPipeline = load_pipeline(folder, precision, family.width, family.height, "cpu", adapters)
        in_any_size(self.pipeline.stock)
        self.batch_sizes: dict[int, int] = {}
        self.tally = Tally()  # of the last `draw`
        self._blanks: dict[Any, Any] = {}

    def diffusion_engine(self, cap: int, queue_cap: int) -> DiffusionEngine:
        """The worker's engine around this model, for batches of `cap` requests; close it."""
        family = self.family
        facts = ModelFacts(
            model_digest="tiny",
            noise_scheduler=self.pipeline.scheduler_name,
            dtype="float32",
            device="cpu",
            num_inference_steps=family.steps,
            guidance_scale=family.guidance,
            width=family.width,
            height=family.height,
            latent_bytes=0,
            engine="diffusion",
        )
        times = WarmUpTimes(cap, (0.01,) * cap, 0.001)
        return DiffusionEngine(self.pipeline, facts, times, LatentCache(MemoryStore(), facts), queue_cap)

    def job(self, request: TinyRequest, skipped_steps: int = 0) -> Job:
        family = self.family
        images = request.images
        if family.takes_image and not images.used:
            images = replace(images, init=sample_image(family.width, family.height))
        return Job(
            request_id=str(request.seed),
            prompt=request.prompt,
            negative_prompt=request.negative,
            seed=request.seed,
            guidance_scale=family.guidance if request.guidance is None else request.guidance,
            level=Level(skipped_steps, request.steps or family.steps, **request.bent),
            image_format="png",
            size=request.size,
            drawing=replace(request.drawing, arguments={**family.extra, **request.extra}),
            images=images,
        )

    def resume(self, request: TinyRequest, start: ResumeFrom) -> Tensor:
        """The final latent of a run that enters a step with just this latent: the engine's hooks without its loop."""
        job = self.job(request, start.step)
        steps = job.level.num_inference_steps
        call = StockCall(
            self.pipeline,
            self.pipeline.arguments(job),
            self.pipeline.denoiser.forward,
            keep=frozenset({steps}),
            start=Start(start.latent, start.step),
        )
        call.draw(request.seed)
        return call.own.kept[steps]

    def draw(
        self, requests: Sequence[TinyRequest], resumed: Mapping[int, ResumeFrom] | None = None, cap: int = 8
    ) -> list[EngineRun]:
        """Run them together: no step begins before each of the first `cap` has asked for its first.

        `resumed` says by place which of them start from a latent.
        """
        tally = Tally()
        loop = StepLoop(self.pipeline.denoiser, WarmUpTimes(cap, (0.01,) * cap, 0.001), lambda _: None, tally)
        parts = SharedParts(self.pipeline, loop, blanks=self._blanks)
        starts = resumed or {}
        runs = [self._prepared(parts, request, starts.get(place)) for place, request in enumerate(requests)]
        threads = [threading.Thread(target=run.run, daemon=True) for run in runs]
        for thread in threads:
            thread.start()
        self._wait(lambda: loop.state.waiting + sum(run.error is not None for run in runs) >= min(cap, len(runs)))
        loop.start()
        for thread in threads:
            thread.join(WAIT_S)
        loop.stop(WAIT_S)
        assert not any(thread.is_alive() for thread in threads), "a request never ended"
        self.batch_sizes, self.tally = tally.batch_sizes, tally
        return runs

    def _prepared(self, parts: SharedParts, request: TinyRequest, resume: ResumeFrom | None) -> EngineRun:
        start: Future[StartLatent] = Future()
        start.set_result(StartLatent(None, 0, "") if resume is None else StartLatent(resume.latent, resume.step, ""))
        job = self.job(request, 0 if resume is None else resume.step)
        steps = job.level.num_inference_steps
        running = RunningRequest(steps)
        stock = PipelineRun(parts, job, running, start)
        stock.keep = frozenset({steps})
        return EngineRun(stock, running, steps)

    @staticmethod
    def _wait(met: Any) -> None:
        ends_s = time.monotonic() + WAIT_S
        while not met():
            assert time.monotonic() < ends_s, "a request never asked for its first step"
            time.sleep(0.001)
