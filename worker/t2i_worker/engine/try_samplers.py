"""Try a sampler when a request names it for the first time, so that only those which draw are offered.

Some pipelines hand their noise scheduler noise levels or a shift, which not every one takes. Each says no in its own
way, and only when it is called. Others make a schedule and lose the image in values that are not finite. A refusal
lists what there is instead, so before it all others are tried. In a trial the denoiser runs once: that output answers
every call.
"""

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from typing import Any

import torch

from t2i_policy.level import Level
from t2i_runtime.drawing import PLAIN, Drawing
from t2i_worker.device_errors import is_device_lost, is_out_of_memory
from t2i_worker.engine.noise_scheduler import StepTaken
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.errors import JobInvalid, NotFinite
from t2i_worker.jobs import Job
from t2i_worker.pipelines import LoadedPipeline
from t2i_worker.pipelines.samplers import suited_kinds

STEPS = 6


class _LastStep(Exception):
    """It was made, and its values are finite."""


class SamplerTrials:
    """What is known of the samplers that suit the model. `check` takes its time; one thread at a time calls it."""

    def __init__(self, pipeline: LoadedPipeline) -> None:
        self._pipeline = pipeline
        self._suited = suited_kinds(pipeline.stock.scheduler)
        self._tried = {type(pipeline.stock.scheduler).__name__}

    def knows(self, job: Job) -> bool:
        """Whether the pipeline's answer to the job's sampler is final, so that `check` has nothing to try."""
        if not job.drawing.sampler:
            return True
        try:
            return self._kind_of(job) in self._tried
        except JobInvalid:
            return self._suited <= self._tried

    def check(self, job: Job) -> None:
        """Raises:
        JobInvalid: the pipeline draws nothing with the job's sampler; lists those that it draws with.
        """
        try:
            self._try({self._kind_of(job)})
            self._kind_of(job)
        except JobInvalid:
            self._try(self._suited)
            self._kind_of(job)

    def _kind_of(self, job: Job) -> str:
        return type(self._pipeline.scheduler(job)).__name__

    def _try(self, kinds: Collection[str]) -> None:
        encoded: list[Any] = []  # the text is encoded once for all
        outputs: list[Any] = []
        for kind in sorted({*kinds} - self._tried):
            if not _draws(self._pipeline, kind, encoded, outputs):
                self._pipeline.refused_samplers |= {kind}
            self._tried.add(kind)


def _draws(pipeline: LoadedPipeline, kind: str, encoded: list[Any], outputs: list[Any]) -> bool:
    images, texts = pipeline.sample_images(), ExitStack()
    job = Job("trial", "a photo", "", 0, 1.0, Level(0, STEPS), "png", images=images, drawing=Drawing(kind))

    def denoise(arguments: Mapping[str, Any]) -> Any:
        texts.close()
        if not outputs:
            outputs.append(pipeline.denoiser.forward(arguments))
        return outputs[0]

    try:
        call = StockCall(
            pipeline,
            pipeline.arguments(job),
            denoise,
            _check_step,
            decodes=_end,
            encoded=encoded,
            scheduler=pipeline.scheduler(job),
            stock=pipeline.stock_for(images),
        )
        with texts:
            texts.enter_context(pipeline.texts)
            pipeline.use_in_texts(PLAIN)
            call.draw(0)
    except _LastStep:
        pass
    except Exception as error:
        if is_device_lost(error, pipeline.device) or is_out_of_memory(error):
            raise
        return False
    return True  # one that decodes nothing drew to its end


def _check_step(taken: StepTaken) -> None:
    latents = taken.output[0] if isinstance(taken.output, tuple) else taken.output.prev_sample
    if not torch.isfinite(latents).all():
        raise NotFinite("values that are not finite")


def _end() -> None:
    raise _LastStep
