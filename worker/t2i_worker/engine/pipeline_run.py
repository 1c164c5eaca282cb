"""One request in its thread: the stock pipeline's call from text to pixels, whose denoiser calls go to the step loop.

1. Wait for the text lock, and begin the call. The pipeline encodes the texts and makes its schedule and start noise.
2. Its first call of the denoiser ends that part. Take the start that was fetched meanwhile.
3. Calls of skipped steps are answered with zeros, those of forecast steps from the run's own outputs. All others meet
   in the step loop.
4. After the last step the pipeline decodes, while the batch goes on without it.
"""

import time
from collections.abc import Hashable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from t2i_cache.fetching import FetchReason
from t2i_policy.level import Level
from t2i_worker.engine.meeting import DenoiserCall, SignatureReader, blank
from t2i_worker.engine.noise_scheduler import Start, StartRefused, StepTaken
from t2i_worker.engine.request import RunningRequest, StepDone
from t2i_worker.engine.saved_calls import SavedCalls
from t2i_worker.engine.step_loop import StepLoop
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.errors import BudgetSpent
from t2i_worker.images import encode_image, encode_preview
from t2i_worker.jobs import Job
from t2i_worker.latents import StartLatent
from t2i_worker.pipelines import LoadedPipeline
from t2i_worker.pipelines.image_tasks import parameters_of
from t2i_worker.provenance import xmp_packet

PREVIEW_STEPS = 2
MAX_BLANKS = 64
#: What a client is told, by the place where its request failed.
FAILED_AT = {
    "text": "the prompt could not be encoded",
    "steps": "the noise scheduler failed on this request",
    "image": "the image could not be decoded",
}
FROM_NOISE = StartLatent(None, 0, FetchReason.AS_REQUESTED)


@dataclass(frozen=True, slots=True)
class DrawnImages:
    """Image files, and the kept latents by the step that they enter, on the CPU."""

    files: list[bytes]
    kept: Mapping[int, Tensor]
    encode_s: float


@dataclass(slots=True)
class SharedParts:
    """What all runs of an engine share. `blanks` holds zeros like the denoiser's outputs, by the kind of call."""

    pipeline: LoadedPipeline
    loop: StepLoop
    model_digest: str = ""
    blanks: dict[Hashable, Any] = field(default_factory=dict)

    def remember(self, call: DenoiserCall, output: Any) -> None:
        if call.kind not in self.blanks:
            if len(self.blanks) >= MAX_BLANKS:
                self.blanks.clear()  # every text length of some families has its own
            self.blanks[call.kind] = blank(output)


class PipelineRun:
    """Call `draw` once, in the request's own thread. `start` is the latent that the event loop fetches meanwhile.

    Raises:
        JobInvalid: the pipeline does not take what the job says.

    `place` says what the run does at the moment; `side_began_s` since when it has worked outside the step loop.
    """

    def __init__(self, parts: SharedParts, job: Job, request: RunningRequest, start: "Future[StartLatent]") -> None:
        self.place = "text"
        self.side_began_s: float | None = None
        self.notes = parts.pipeline.notes(job)
        self.started = FROM_NOISE  # how it really began; known when the request joins
        self._parts = parts
        self._arguments = parts.pipeline.arguments(job)
        self.scheduler = parts.pipeline.scheduler(job)  # a template
        self._job = job
        self._request = request
        self._start = start
        self._active = parts.pipeline.denoiser.parts_for(job.drawing, job.images)
        self._reader = SignatureReader(parts.pipeline.denoiser.shared, self._active)
        self._in_text = False
        self._resumes = job.level.skipped_steps > 0
        self._call: StockCall
        self._saved: SavedCalls
        self._encoded: list[Any] = []
        self._stock = parts.pipeline.stock_for(job.images)
        self.keep: frozenset[int] = frozenset()

    def draw(self) -> DrawnImages:
        """Raises:
        Left: the request was cancelled.
        WorkerError, Exception: it failed; `place` says where.
        """
        try:
            try:
                pixels = self._draw_pixels()
            except StartRefused:
                self._begin_anew()
                pixels = self._draw_pixels()
            began_s = self._request.denoised_s or time.monotonic()
            self.place = "image"
            xmp = xmp_packet(self._job, self.served, self._parts.model_digest)
            files = [encode_image(one, self._job.image_format, xmp) for one in pixels]
            kept = {step: latent.cpu() for step, latent in self._call.own.kept.items()}
            return DrawnImages(files, kept, time.monotonic() - began_s)
        finally:
            self._end_text()
            self._parts.loop.leave(self._request)
            self.side_began_s = None
            self._let_go()

    @property
    def served(self) -> Level:
        """The level that really runs; known when the request has joined."""
        return replace(self._job.level, skipped_steps=self.started.step)

    def preview(self, estimate: Tensor) -> bytes:
        """A small image of a clean latent: a stock call whose every step is skipped."""
        pipeline = self._parts.pipeline
        arguments = {**self._arguments, "num_inference_steps": PREVIEW_STEPS}
        if "strength" in parameters_of(type(self._stock)):
            arguments["strength"] = 1.0  # or no step might be left
        for schedule in ("timesteps", "sigmas"):
            arguments.pop(schedule, None)
        texts = ExitStack()

        def answer(call: Mapping[str, Any]) -> Any:
            texts.close()
            kind = SignatureReader(pipeline.denoiser.shared, self._active).read(call).kind
            known = self._parts.blanks.get(kind)
            return pipeline.denoiser.forward(call, self._active) if known is None else blank(known)

        start = Start(estimate, PREVIEW_STEPS)
        vae = None if self._job.images else pipeline.preview_vae  # a small one may have no encoder
        call = StockCall(
            pipeline,
            arguments,
            answer,
            encoded=self._encoded,
            start=start,
            scheduler=self.scheduler,
            stock=self._stock,
            vae=vae,
        )
        with texts:
            texts.enter_context(pipeline.texts)
            pipeline.use_in_texts(self._job.drawing)
            return encode_preview(call.draw(self._job.seed)[0])

    def _draw_pixels(self) -> npt.NDArray[np.uint8]:
        job = self._job
        self._wait_for_text()
        self._parts.pipeline.use_in_texts(job.drawing)
        self._saved = SavedCalls(job.level, self._parts.pipeline.prompted_part, self._reader, self._meet)
        self._call = StockCall(
            self._parts.pipeline,
            self._arguments,
            self._answer,
            self._on_step,
            decodes=self._decodes,
            on_schedule=self._on_schedule,
            keep=self.keep,
            encoded=self._encoded,
            resumes=self._resumes,
            scheduler=self.scheduler,
            notes=self.notes,
            stock=self._stock,
        )
        return self._call.draw(job.seed)

    def _begin_anew(self) -> None:
        """From noise, as if no step was to be skipped."""
        self._parts.loop.leave(self._request)
        self._request.step, self._request.denoised_s, self._resumes = 0, None, False
        reason = FetchReason.MISMATCH if self.started.latent is not None else self.started.reason
        self._start = Future()
        self._start.set_result(StartLatent(None, 0, reason, self.started.fetch_s))

    def _wait_for_text(self) -> None:
        deadline_s = self._request.deadline_s
        limit_s = -1.0 if deadline_s is None else max(0.0, deadline_s - time.monotonic())
        if not self._parts.pipeline.texts.acquire(timeout=limit_s):
            raise BudgetSpent("the budget ran out before the first step")
        self._in_text = True
        self.place = "text"
        self._parts.loop.raise_if_over(self._request)
        self.side_began_s = time.monotonic()

    def _let_go(self) -> None:
        """They refer to this run, so its tensors, on the device too, would wait for the garbage collector."""
        for name in ("_call", "_saved"):
            self.__dict__.pop(name, None)

    def _end_text(self) -> None:
        if self._in_text:
            self._in_text = False
            self._parts.pipeline.texts.release()

    def _answer(self, arguments: Mapping[str, Any]) -> Any:
        """What the pipeline gets in place of a call of the denoiser."""
        if self.place == "text":
            self._begin_steps()
        call = self._reader.read(arguments)
        own = self._call.own
        if own.skips and (known := self._parts.blanks.get(call.kind)) is not None:
            return blank(known)
        return self._saved.answer(own, call) if self._saved.saves else self._meet(call)

    def _meet(self, call: DenoiserCall) -> Any:
        output = self._parts.loop.meet(self._request, call)
        self._parts.remember(call, output)
        return output

    def _begin_steps(self) -> None:
        self._end_text()
        self.side_began_s = None
        self.place = "steps"
        self.started = self._start.result()
        if self.started.latent is not None:
            source, step = self._job.source, self.started.step
            if source is not None and source.same_image:
                step = self._request.num_steps  # nothing is left to denoise
            self._call.own.start = Start(self.started.latent, step, is_final=True)
            self._request.step = step
        elif self._call.swapped:
            raise StartRefused  # a run without a start has the pipeline's own sampler

    def _on_schedule(self, num_steps: int) -> None:
        self._request.num_steps = num_steps  # it has not met the loop yet

    def _on_step(self, taken: StepTaken) -> None:
        every = self._job.preview_every_steps
        due = every and taken.step % every == 0 and taken.step < self._request.num_steps
        preview = self._call.own.estimate(taken) if due else None
        if taken.step >= self._request.num_steps:
            self._decodes()
        is_forecast = self._saved.is_forecast(taken.step - 1)
        self._parts.loop.step_done(self._request, StepDone(taken.step, preview, is_forecast))

    def _decodes(self) -> None:
        if self.place == "steps":
            self.place = "image"
            self.side_began_s = time.monotonic()
            self._parts.loop.leave(self._request)
