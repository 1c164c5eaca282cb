"""A sampler is tried when a request names it first: a start waits for none, and what is offered draws.

FLUX hands its sampler noise levels, which Heun does not take.
"""

import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from t2i_cache.stores import MemoryStore
from t2i_policy.readiness import ReadyReason
from t2i_runtime.drawing import Drawing
from t2i_testing_kit.tiny_pipelines.families import save_family
from t2i_testing_kit.tiny_pipelines.in_engine import TinyEngine
from t2i_testing_kit.tiny_pipelines.stock import TinyRequest
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.diffusion import DiffusionEngine
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.errors import BudgetSpent, EngineLost, JobInvalid, OutOfMemory, WorkerError
from t2i_worker.jobs import Image, Job, ModelFacts
from t2i_worker.latents import LatentCache

FAMILY, STEPS = "flux-dev", 2
Before = Callable[[], None]


class Forwards:
    """Counts the denoiser's forwards; `before` runs ahead of each that a trial makes."""

    def __init__(self, real: Callable[..., Any]) -> None:
        self.count = 0
        self.before: Before = lambda: None
        self._real = real

    def __call__(self, arguments: Mapping[str, Any], *parts: Any) -> Any:
        self.count += 1
        if threading.current_thread().name.startswith("aside"):
            self.before()
        return self._real(arguments, *parts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_family(FAMILY, tmp_path_factory.mktemp("samplers") / FAMILY)


@pytest.fixture
def tiny(folder: Path) -> TinyEngine:
    return TinyEngine(FAMILY, folder)


@pytest.fixture
def forwards(tiny: TinyEngine, monkeypatch: pytest.MonkeyPatch) -> Forwards:
    made = Forwards(tiny.pipeline.denoiser.forward)
    monkeypatch.setattr(tiny.pipeline.denoiser, "forward", made)
    return made


@pytest.fixture
async def engine(tiny: TinyEngine) -> AsyncIterator[DiffusionEngine]:
    family = tiny.family
    facts = ModelFacts("tiny", "", "float32", "cpu", STEPS, 3.5, family.width, family.height, 0, "diffusion")
    made = DiffusionEngine(tiny.pipeline, facts, WarmUpTimes(2, (0.01, 0.02), 0.001), LatentCache(MemoryStore(), facts))
    yield made
    await made.close()


def job_with(tiny: TinyEngine, sampler: str, **changes: Any) -> Job:
    return replace(tiny.job(TinyRequest(seed=1, steps=STEPS, drawing=Drawing(sampler))), **changes)


def held(release: threading.Event) -> None:
    assert release.wait(60)


async def images_of(engine: DiffusionEngine, job: Job) -> int:
    return sum([isinstance(event, Image) async for event in engine.generate(job)])


async def refusal_of(engine: DiffusionEngine, job: Job) -> str:
    with pytest.raises(JobInvalid) as refused:
        await images_of(engine, job)
    (violation,) = refused.value.violations
    assert violation.field == "drawing.sampler"
    return violation.description


async def test_each_is_tried_once_by_the_first_request(
    engine: DiffusionEngine, tiny: TinyEngine, forwards: Forwards
) -> None:
    """A trial is one forward more. Requests that name no sampler pay nothing."""
    for sampler, calls in (("", STEPS), ("lcm", STEPS + 1), ("lcm", STEPS), ("FlowMatchLCMScheduler", STEPS)):
        forwards.count = 0
        assert await images_of(engine, job_with(tiny, sampler)) == 1
        assert forwards.count == calls, sampler


@pytest.mark.parametrize("first", ["heun", "no such sampler"])
async def test_refusal_lists_only_what_draws(first: str, engine: DiffusionEngine, tiny: TinyEngine) -> None:
    """Also to the first who asks, and also where the name is not known at all."""
    says = await refusal_of(engine, job_with(tiny, first))
    offered = says.partition("take one of ")[2].split(", ")
    assert {"euler", "lcm", "unipc", "FlowMatchLCMScheduler"} <= {*offered}
    assert not [name for name in offered if "heun" in name.lower()]
    assert await refusal_of(engine, job_with(tiny, first)) == says, "known from now on"
    pipeline = tiny.pipeline
    for name in offered:
        job = job_with(tiny, name)
        call = StockCall(
            pipeline, pipeline.arguments(job), pipeline.denoiser.forward, scheduler=pipeline.scheduler(job)
        )
        assert np.isfinite(call.draw(1)).all()


async def test_trial_that_outlasts_a_budget_serves_the_next_request(
    engine: DiffusionEngine, tiny: TinyEngine, forwards: Forwards
) -> None:
    """The request ends when its budget does; others without that sampler are served meanwhile."""
    release = threading.Event()
    forwards.before = lambda: held(release)
    with pytest.raises(BudgetSpent):
        await images_of(engine, job_with(tiny, "lcm", deadline_s=time.monotonic() + 0.1))
    assert await images_of(engine, job_with(tiny, "")) == 1
    release.set()
    assert await images_of(engine, job_with(tiny, "lcm")) == 1


@pytest.mark.parametrize(
    ("error", "told", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."), OutOfMemory, ReadyReason.READY),
        (torch.AcceleratorError("CUDA error: device-side assert triggered"), EngineLost, ReadyReason.DEVICE_LOST),
    ],
    ids=["out of memory", "device lost"],
)
async def test_fault_of_the_device_in_a_trial_is_no_fault_of_the_sampler(
    error: Exception,
    told: type[WorkerError],
    reason: ReadyReason,
    engine: DiffusionEngine,
    tiny: TinyEngine,
    forwards: Forwards,
) -> None:
    def fail() -> None:
        raise error

    forwards.before = fail
    with pytest.raises(told):
        await images_of(engine, job_with(tiny, "lcm"))
    assert engine.readiness().reason is reason
    if reason is ReadyReason.READY:
        forwards.before = lambda: None
        assert await images_of(engine, job_with(tiny, "lcm")) == 1
