"""Fixtures: tiny pipelines saved and loaded like hub folders, a plain step-by-step run, a step loop to listen to.

Sizes are not square (48x32 pixels) where a pipeline allows it, so that mixing up height and width shows.
"""

import runpy
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from torch import Tensor

from t2i_worker.engine.request import Deliveries, Denoised, RunningRequest, StepEvent, StepFailed
from t2i_worker.engine.step_loop import StepLoop
from t2i_worker.jobs import Tally
from t2i_worker.pipelines import PipelineAdapter, load_adapter, stack_conditions

WIDTH, HEIGHT, SCENES_SIDE = 48, 32, 24
WAIT_S = 30.0
BUILDERS = runpy.run_path(str(Path(__file__).with_name("tiny_models.py")))["BUILDERS"]


class Denoise(Protocol):
    """Runs one request alone with plain adapter calls."""

    def __call__(
        self,
        adapter: PipelineAdapter,
        prompt: str,
        *,
        negative: str = "",
        seed: int = 0,
        steps: int = 4,
        guidance: float = 3.0,
        begin: int = 0,
        start: Tensor | None = None,
    ) -> list[Tensor]:
        """The latents entering steps `begin`, `begin` + 1, ... and last the final one."""


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`model_folder(family, scheduler=None)`: a saved tiny pipeline, with another noise scheduler if one is given."""

    @cache
    def built(family: str) -> Any:
        torch.manual_seed(7)
        return BUILDERS[family]()

    def save(family: str, scheduler: Any = None) -> Path:
        pipeline = built(family)
        own = pipeline.scheduler
        if scheduler is not None:
            pipeline.register_modules(scheduler=scheduler)
        folder = tmp_path_factory.mktemp(family)
        pipeline.save_pretrained(folder)
        pipeline.register_modules(scheduler=own)
        return folder

    kept: dict[str, Path] = {}

    def folder(family: str, scheduler: Any = None) -> Path:
        if scheduler is not None:
            return save(family, scheduler)
        if family not in kept:
            kept[family] = save(family)
        return kept[family]

    return folder


@pytest.fixture(scope="session")
def load(model_folder: Callable[..., Path]) -> Callable[..., PipelineAdapter]:
    """`load(family, scheduler=None, precision="fp32")`: a new adapter on the CPU, of the family's size."""

    def adapter(family: str, scheduler: Any = None, precision: str = "fp32") -> PipelineAdapter:
        width, height = (SCENES_SIDE, SCENES_SIDE) if family == "scenes" else (WIDTH, HEIGHT)
        return load_adapter(model_folder(family, scheduler), precision, width, height, "cpu")

    return adapter


@pytest.fixture(scope="session")
def adapter_of(load: Callable[..., PipelineAdapter]) -> Callable[[str], PipelineAdapter]:
    """`adapter_of(family)`: one adapter for the whole session; do not change it."""
    return cache(lambda family: load(family))


@pytest.fixture(scope="session")
def denoise() -> Denoise:
    def run(
        adapter: PipelineAdapter,
        prompt: str,
        *,
        negative: str = "",
        seed: int = 0,
        steps: int = 4,
        guidance: float = 3.0,
        begin: int = 0,
        start: Tensor | None = None,
    ) -> list[Tensor]:
        schedule = adapter.schedule(steps, begin, seed)
        latent = adapter.initial_latent(seed) * schedule.initial_scale if start is None else start
        latents = [latent]
        with torch.inference_mode():
            conditions = stack_conditions([adapter.encode(prompt, negative, guidance)])
            for step in range(begin, steps):
                timestep = schedule.timesteps[step].reshape(1)
                prediction = adapter.predict(schedule.model_input(latent, step), timestep, conditions)
                latent = schedule.advance(prediction, latent, step)
                latents.append(latent)
        return latents

    return run


class Listening:
    """A step loop whose events are kept by request. `tally` is the loop's."""

    def __init__(self, adapter: PipelineAdapter, cap: int) -> None:
        self.tally = Tally()
        self.loop = StepLoop(adapter, cap, tuple(0.01 for _ in range(cap)), self._hear, self.tally)
        self._heard: list[tuple[RunningRequest, StepEvent]] = []
        self._condition = threading.Condition()  # re-entrant: waiting reads too

    def _hear(self, deliveries: Deliveries) -> None:
        with self._condition:
            self._heard += deliveries
            self._condition.notify_all()

    def events(self, request: RunningRequest) -> list[StepEvent]:
        """What was said about a request so far."""
        with self._condition:
            return [event for heard, event in self._heard if heard is request]

    def ended(self) -> list[RunningRequest]:
        """Requests that were done or failed, in this order."""
        with self._condition:
            return [heard for heard, event in self._heard if isinstance(event, Denoised | StepFailed)]

    def wait_for_end(self, *requests: RunningRequest) -> None:
        """Return when each of them is done or has failed."""
        with self._condition:
            met = self._condition.wait_for(lambda: all(one in self.ended() for one in requests), WAIT_S)
        assert met, [self.events(one)[-1:] for one in requests]


@pytest.fixture
def listen() -> Iterator[Callable[[PipelineAdapter, int], Listening]]:
    """`listen(adapter, cap)`: a loop, not started yet; stopped after the test."""
    made: list[Listening] = []

    def make(adapter: PipelineAdapter, cap: int) -> Listening:
        made.append(Listening(adapter, cap))
        return made[-1]

    yield make
    for one in made:
        if one.loop._thread.ident is not None:
            one.loop.stop(WAIT_S)
