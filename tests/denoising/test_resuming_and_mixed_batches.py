"""Resuming at step K goes on as the full run did, and who shares a batch changes nobody's latents."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)
from torch import Tensor

from t2i_worker.engine.request import Denoised, RunningRequest
from t2i_worker.pipelines import PipelineAdapter

TOLERANCE = 1e-4
FAMILIES = ("sd", "sdxl", "sd3", "flux", "scenes")
PROMPT, OTHER = "a red circle left of the blue square", "two green"
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

Load = Callable[..., PipelineAdapter]
Run = Callable[..., list[Tensor]]


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


@pytest.mark.parametrize("skipped", [1, 3, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_run_equals_full_run(
    family: str, skipped: int, adapter_of: Callable[[str], PipelineAdapter], denoise: Run
) -> None:
    """Euler keeps no history: the latent entering step K and the remaining steps give the full run's result."""
    full = denoise(adapter_of(family), PROMPT, steps=5, seed=3)
    resumed = denoise(adapter_of(family), PROMPT, steps=5, seed=3, begin=skipped, start=full[skipped])
    assert len(resumed) == len(full) - skipped
    assert max(distance(a, b) for a, b in zip(resumed, full[skipped:], strict=True)) <= TOLERANCE


def test_resumed_multistep_run_starts_without_history(load: Load, denoise: Run) -> None:
    """DPM-Solver's first resumed step is of first order: close to the full run, finite, and the same every time."""
    adapter = load("sd", DPMSolverMultistepScheduler(**BETAS))
    full = denoise(adapter, PROMPT, steps=6, seed=3)
    resumed = denoise(adapter, PROMPT, steps=6, seed=3, begin=3, start=full[3])
    again = denoise(adapter, PROMPT, steps=6, seed=3, begin=3, start=full[3])
    moved = distance(full[3], full[-1])
    assert 0 < distance(resumed[-1], full[-1]) < 0.5 * moved
    assert torch.equal(resumed[-1], again[-1])


@pytest.mark.parametrize("kind", [PNDMScheduler, HeunDiscreteScheduler])
def test_schedulers_of_several_forwards_replaced(kind: Any, load: Load, denoise: Run) -> None:
    """A pool counts one forward a step: PNDM and Heun give way to Euler on the same noise levels."""
    levels = {**BETAS, "timestep_spacing": "leading", "steps_offset": 1}
    adapter = load("sd", kind(**levels))
    assert isinstance(adapter.scheduler, EulerDiscreteScheduler)
    assert len(adapter.schedule(5, 0, 0).timesteps) == 5
    euler = load("sd", EulerDiscreteScheduler(**levels))
    assert distance(denoise(adapter, PROMPT)[-1], denoise(euler, PROMPT)[-1]) <= TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
def test_mixed_batch_gives_what_each_gives_alone(
    family: str, adapter_of: Callable[[str], PipelineAdapter], denoise: Run, listen: Callable[..., Any]
) -> None:
    """Other timesteps, guidance (one has none), schedule lengths and prompts in the batch change no latent."""
    adapter = adapter_of(family)
    wishes: list[dict[str, Any]] = [
        {"prompt": PROMPT, "seed": 1, "steps": 4, "guidance": 3.0},
        {"prompt": OTHER, "seed": 2, "steps": 6, "guidance": 1.0},
        {"prompt": OTHER, "seed": 3, "steps": 5, "guidance": 5.0, "negative": PROMPT},
        {"prompt": PROMPT, "seed": 4, "steps": 6, "guidance": 2.0, "begin": 2},
    ]
    alone = []
    for wish in wishes:
        full = denoise(adapter, **{**wish, "begin": 0})
        alone.append(full)
    listening = listen(adapter, 3)
    requests = [to_running(adapter, wish, full) for wish, full in zip(wishes, alone, strict=True)]
    for request in requests:
        listening.loop.submit(request)
    listening.loop.start()
    listening.wait_for_end(*requests)
    assert listening.tally.batch_sizes.get(3, 0) >= 4, "the batch was not shared"
    for request, full in zip(requests, alone, strict=True):
        assert isinstance(listening.events(request)[-1], Denoised)
        assert distance(request.latent, full[-1]) <= TOLERANCE


def test_random_schedulers_draw_from_request_own_seed(load: Load, denoise: Run, listen: Callable[..., Any]) -> None:
    """Noise that a scheduler adds on the way depends on the request's seed alone, not on its neighbours."""
    adapter = load("sd", EulerAncestralDiscreteScheduler(**BETAS))
    wishes: list[dict[str, Any]] = [{"prompt": PROMPT, "seed": seed, "steps": 4, "guidance": 3.0} for seed in (1, 2)]
    alone = [denoise(adapter, **wish) for wish in wishes]
    listening = listen(adapter, 2)
    requests = [to_running(adapter, wish, full) for wish, full in zip(wishes, alone, strict=True)]
    for request in requests:
        listening.loop.submit(request)
    listening.loop.start()
    listening.wait_for_end(*requests)
    assert all(distance(one.latent, full[-1]) <= TOLERANCE for one, full in zip(requests, alone, strict=True))


def to_running(adapter: PipelineAdapter, wish: dict[str, Any], full: list[Tensor]) -> RunningRequest:
    begin = wish.get("begin", 0)
    return RunningRequest(
        latent=full[begin],
        step=begin,
        num_steps=wish["steps"],
        schedule=adapter.schedule(wish["steps"], begin, wish["seed"]),
        conditions=adapter.encode(wish["prompt"], wish.get("negative", ""), wish["guidance"]),
        deliver=lambda _: None,
    )
