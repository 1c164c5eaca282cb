"""Resuming at step K goes on as the full run did, and who shares a batch changes nobody's latents."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)
from torch import Tensor

from t2i_policy.level import Level
from t2i_worker.engine.pipeline_run import SharedParts
from t2i_worker.engine.request import StepDone
from t2i_worker.jobs import Job
from t2i_worker.pipelines import LoadedPipeline

TOLERANCE = 1e-4
FAMILIES = ("sd", "sdxl", "sd3", "flux", "scenes")
PROMPT, OTHER = "a red circle left of the blue square", "two green"
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

WISH: dict[str, Any] = {"prompt": PROMPT, "seed": 3, "steps": 4, "guidance": 3.0}

Load = Callable[..., LoadedPipeline]
Run = Callable[..., list[Tensor]]


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("skipped", [1, 3, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_run_equals_full_run(
    family: str, skipped: int, pipeline_of: Callable[[str], LoadedPipeline], denoise: Run
) -> None:
    """Euler keeps no history: the latent entering step K and the remaining steps give the full run's result."""
    full = denoise(pipeline_of(family), PROMPT, steps=5, seed=3)
    resumed = denoise(pipeline_of(family), PROMPT, steps=5, seed=3, begin=skipped, start=full[skipped])
    assert len(resumed) == len(full) - skipped
    assert max(distance(a, b) for a, b in zip(resumed, full[skipped:], strict=True)) <= TOLERANCE


def test_resumed_multistep_run_starts_without_history(load: Load, denoise: Run) -> None:
    """DPM-Solver's first resumed step is of first order: close to the full run, finite, and the same every time."""
    pipeline = load("sd", DPMSolverMultistepScheduler(**BETAS))
    full = denoise(pipeline, PROMPT, steps=6, seed=3)
    resumed = denoise(pipeline, PROMPT, steps=6, seed=3, begin=3, start=full[3])
    again = denoise(pipeline, PROMPT, steps=6, seed=3, begin=3, start=full[3])
    moved = distance(full[3], full[-1])
    assert 0 < distance(resumed[-1], full[-1]) < 0.5 * moved
    assert torch.equal(resumed[-1], again[-1])


@pytest.mark.parametrize("skipped", [1, 3])
def test_sampler_of_two_forwards_a_step_resumes_exactly(skipped: int, load: Load, denoise: Run) -> None:
    """Heun's step K begins with its first forward, and nothing of the step before is needed for it."""
    pipeline = load("sd", HeunDiscreteScheduler(**BETAS))
    full = denoise(pipeline, PROMPT, steps=5, seed=3)
    assert len(full) == 6
    resumed = denoise(pipeline, PROMPT, steps=5, seed=3, begin=skipped, start=full[skipped])
    assert distance(resumed[-1], full[-1]) <= TOLERANCE


@pytest.mark.parametrize("start", [torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 16, 24, dtype=torch.float64)])
def test_latent_of_another_shape_or_type_is_left_alone(
    start: Tensor, load: Load, denoise: Run, listen: Callable[..., Any], in_loop: Any
) -> None:
    """Whoever wrote it: the run begins from its own noise, and says so."""
    pipeline = load("sd")
    full = denoise(pipeline, PROMPT, steps=4, seed=3)
    (run,) = run_together(listen, in_loop, pipeline, 1, [{**WISH, "begin": 2, "final": start}])
    assert torch.equal(run.latent, full[-1])
    assert (run.stock.started.step, run.stock.started.reason) == (0, "LatentMismatch")
    assert [event.step for event in run.events if isinstance(event, StepDone)] == [1, 2, 3, 4]


def test_pndm_that_finds_no_latent_is_the_stock_run(
    load: Load, denoise: Run, listen: Callable[..., Any], in_loop: Any
) -> None:
    """The sampler for resuming is only for runs that do resume."""
    pipeline = load("sd", PNDMScheduler(**BETAS, skip_prk_steps=True))
    full = denoise(pipeline, PROMPT, steps=4, seed=3)
    (run,) = run_together(listen, in_loop, pipeline, 1, [{**WISH, "begin": 2}])
    assert torch.equal(run.latent, full[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_batch_gives_what_each_gives_alone(
    family: str, pipeline_of: Callable[[str], LoadedPipeline], denoise: Run, listen: Callable[..., Any], in_loop: Any
) -> None:
    """Other timesteps, guidance (one has none), schedule lengths and prompts in the batch change no latent."""
    pipeline = pipeline_of(family)
    wishes: list[dict[str, Any]] = [
        {"prompt": PROMPT, "seed": 1, "steps": 4, "guidance": 3.0},
        {"prompt": OTHER, "seed": 2, "steps": 6, "guidance": 1.0},
        {"prompt": OTHER, "seed": 3, "steps": 5, "guidance": 5.0, "negative": PROMPT},
        {"prompt": PROMPT, "seed": 4, "steps": 6, "guidance": 2.0, "begin": 2},
    ]
    wishes[3]["final"] = denoise(pipeline, OTHER, seed=5)[-1]
    if family == "flux":  # it reads no negative prompt
        del wishes[2]["negative"]
    alone = [denoise(pipeline, **wish) for wish in wishes]
    runs = run_together(listen, in_loop, pipeline, 3, wishes)
    for run, full in zip(runs, alone, strict=True):
        assert distance(run.latent, full[-1]) <= TOLERANCE


def test_random_schedulers_draw_from_request_own_seed(
    load: Load, denoise: Run, listen: Callable[..., Any], in_loop: Any
) -> None:
    """Noise that a scheduler adds on the way depends on the request's seed alone, not on its neighbours."""
    pipeline = load("sd", EulerAncestralDiscreteScheduler(**BETAS))
    wishes: list[dict[str, Any]] = [{"prompt": PROMPT, "seed": seed, "steps": 4, "guidance": 3.0} for seed in (1, 2)]
    alone = [denoise(pipeline, **wish) for wish in wishes]
    runs = run_together(listen, in_loop, pipeline, 2, wishes)
    assert all(distance(one.latent, full[-1]) <= TOLERANCE for one, full in zip(runs, alone, strict=True))


def run_together(
    listen: Callable[..., Any],
    in_loop: Any,
    pipeline: LoadedPipeline,
    cap: int,
    wishes: list[dict[str, Any]],
) -> list[Any]:
    """Every wish in one loop; most forwards must hold all places that share a signature."""
    listening = listen(pipeline.denoiser, cap)
    parts = SharedParts(pipeline, listening.loop)
    runs = []
    for wish in wishes:
        level = Level(wish.get("begin", 0), wish["steps"])
        job = Job("id", wish["prompt"], wish.get("negative", ""), wish["seed"], wish["guidance"], level, "png")
        runs.append(in_loop(parts, job, wish.get("final")))
    listening.post(*runs)
    listening.loop.start()
    listening.wait_for_end(*runs)
    assert [run.error for run in runs] == [None] * len(runs)
    assert listening.tally.batch_sizes.get(cap, 0) >= 3, "the batch was not shared"
    for run in runs:
        run.events = listening.events(run)
    return runs
