"""Which part of a step's denoiser calls has the prompt, found out by looking: no table of families.

Pipelines guide by two outputs: halves of the rows of one call, or two calls of one row each. Either order occurs. The
probe answers them with other numbers, part by part, and looks at what the noise scheduler gets: the prompted part
counts g there, the other one g - 1.
"""

from collections.abc import Mapping
from typing import Any

import torch

from t2i_policy.level import Level
from t2i_worker.engine.meeting import SignatureReader, blank, join_outputs, over_tensors, split_output
from t2i_worker.engine.noise_scheduler import StepTaken, for_resuming
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.errors import JobInvalid
from t2i_worker.jobs import Job
from t2i_worker.pipelines import LoadedPipeline, PromptedPart
from t2i_worker.pipelines.samplers import make_scheduler

PARTS = 2
PROBE_STEPS = 4


def half_of(value: Any, rows: int, half: int) -> Any:
    """The rows of one half, in any structure; what holds no rows stays as it is."""
    return split_output(value, [rows // PARTS] * PARTS)[half]


def find_prompted_part(pipeline: LoadedPipeline, guidance_scale: float) -> PromptedPart | None:
    """None if nothing can be left out: it does not guide by two outputs of equal size, or not at this scale.

    Some families guide only a request with a negative prompt; then it is found by one.
    """
    for negative in ("", "blurred"):
        job = Job(
            "probe",
            "a photo",
            negative,
            0,
            guidance_scale,
            Level(0, PROBE_STEPS),
            "png",
            images=pipeline.sample_images(),
        )
        try:
            found = _find(pipeline, job)
        except JobInvalid:  # it takes no negative prompt
            return None
        if found is not None:
            return found
    return None


def _find(pipeline: LoadedPipeline, job: Job) -> PromptedPart | None:
    rows: list[int] = []
    weights = [_weigh(pipeline, job, part, rows) for part in range(PARTS)]
    if weights[0] == weights[1]:
        return None
    if rows == [PARTS]:
        return PromptedPart(int(weights[1] > weights[0]))
    if rows == [1] * PARTS and weights[0] > weights[1]:
        return PromptedPart(None)
    return None  # also where the prompted call comes last: the other cannot wait for its answer


class _StepSeen(Exception):
    """The noise scheduler made the step that the probe waits for."""


def _weigh(pipeline: LoadedPipeline, job: Job, part: int, rows: list[int]) -> float:
    """How much a part of the first step's outputs counts in what the noise scheduler gets. `rows` of its calls."""
    rows.clear()
    seen: list[float] = []
    reader = SignatureReader(pipeline.denoiser.shared)

    def answer(arguments: Mapping[str, Any]) -> Any:
        call = reader.read(arguments)
        output = pipeline.denoiser.forward(arguments)
        number = len(rows)
        rows.append(call.rows)
        if call.rows == 1:
            return over_tensors(torch.ones_like, output) if number == part else blank(output)
        ones = over_tensors(torch.ones_like, half_of(output, call.rows, 0))
        halves = [ones, blank(ones)]
        return join_outputs(halves[part], halves[1 - part], call.rows // PARTS)

    def on_step(taken: StepTaken) -> None:
        seen.append(abs(float(taken.prediction.float().mean())))
        raise _StepSeen

    own = for_resuming(pipeline.stock.scheduler)
    scheduler = own if int(getattr(own, "order", 1)) == 1 else make_scheduler("euler", own)
    try:
        StockCall(pipeline, pipeline.arguments(job), answer, on_step, scheduler=scheduler).draw(0)
    except _StepSeen:
        return seen[0]
    return 0.0
