"""Fixtures: tiny pipelines saved and loaded like hub folders, a plain step-by-step run, a step loop to listen to.

Sizes are not square (48x32 pixels) where a pipeline allows it, so that mixing up height and width shows.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from t2i_policy.level import Level
from t2i_testing_kit.tiny_pipelines import transformer_pipelines, unet_pipelines
from t2i_worker.engine.batching import WarmUpTimes
from t2i_worker.engine.meeting import SignatureReader
from t2i_worker.engine.noise_scheduler import Start
from t2i_worker.engine.pipeline_run import PipelineRun, SharedParts
from t2i_worker.engine.request import Deliveries, RunningRequest, StepDone, StepEvent
from t2i_worker.engine.step_loop import StepLoop
from t2i_worker.engine.stock_call import StockCall
from t2i_worker.jobs import Job, Tally
from t2i_worker.latents import StartLatent
from t2i_worker.pipelines import LoadedPipeline, load_pipeline

WIDTH, HEIGHT, SCENES_SIDE = 48, 32, 24
WAIT_S = 60.0
_EULER = partial(EulerDiscreteScheduler, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
_FLOW = partial(FlowMatchEulerDiscreteScheduler, shift=3.0)
BUILDERS: Mapping[str, Callable[[], Any]] = {
    "sd": lambda: unet_pipelines.stable_diffusion(_EULER()),
    "sdxl": lambda: unet_pipelines.stable_diffusion_xl(_EULER(steps_offset=1, timestep_spacing="leading")),
    "sd3": lambda: transformer_pipelines.stable_diffusion_3(_FLOW()),
    "flux": lambda: transformer_pipelines.flux(_FLOW(use_dynamic_shifting=True)),
    "scenes": lambda: unet_pipelines.scenes(_FLOW(shift=1.5)),
}


class Denoise(Protocol):
    """Runs one request alone: the stock call, with the engine's hooks and without its loop."""

    def __call__(
        self,
        pipeline: LoadedPipeline,
        prompt: str,
        *,
        negative: str = "",
        seed: int = 0,
        steps: int = 4,
        guidance: float = 3.0,
        begin: int = 0,
        start: Tensor | None = None,
        final: Tensor | None = None,
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
def load(model_folder: Callable[..., Path]) -> Callable[..., LoadedPipeline]:
    """`load(family, scheduler=None, precision="fp32")`: a new pipeline on the CPU, of the family's size."""

    def pipeline(family: str, scheduler: Any = None, precision: str = "fp32") -> LoadedPipeline:
        width, height = (SCENES_SIDE, SCENES_SIDE) if family == "scenes" else (WIDTH, HEIGHT)
        return load_pipeline(model_folder(family, scheduler), precision, width, height, "cpu")

    return pipeline


@pytest.fixture(scope="session")
def pipeline_of(load: Callable[..., LoadedPipeline]) -> Callable[[str], LoadedPipeline]:
    """`pipeline_of(family)`: one pipeline for the whole session; do not change it."""
    return cache(lambda family: load(family))


@pytest.fixture(scope="session")
def denoise() -> Denoise:
    def run(
        pipeline: LoadedPipeline,
        prompt: str,
        *,
        negative: str = "",
        seed: int = 0,
        steps: int = 4,
        guidance: float = 3.0,
        begin: int = 0,
        start: Tensor | None = None,
        final: Tensor | None = None,
    ) -> list[Tensor]:
        job = Job("id", prompt, negative, seed, guidance, Level(begin, steps), "png")
        call = StockCall(
            pipeline,
            pipeline.arguments(job),
            pipeline.denoiser.forward,
            keep=frozenset(range(begin, steps + 1)),
            start=Start(start, begin) if final is None else Start(final, begin, is_final=True),
        )
        call.draw(seed)
        return [call.own.kept[step] for step in range(begin, steps + 1)]

    return run


class Scripted:
    """Stands for a stock pipeline: adds the model's predictions of timesteps 0, 1, 2 ... to `latent`."""

    def __init__(self, weight: int, steps: int = 3, fails_at: int = -1, deadline_s: float | None = None) -> None:
        self.request = RunningRequest(steps, deadline_s)
        self.latent = 0.0
        self.error: Exception | None = None
        self.weight = torch.tensor([float(weight)])
        self._fails_at = fails_at

    def run(self, loop: StepLoop) -> None:
        reader = SignatureReader(())
        try:
            for step in range(self.request.num_steps):
                call = reader.read({"weight": self.weight, "timestep": torch.tensor(float(step))})
                predicted = loop.meet(self.request, call)
                if step == self._fails_at:
                    raise IndexError("no such step")
                self.latent += float(predicted[0])
                loop.step_done(self.request, StepDone(step + 1, None))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        finally:
            loop.leave(self.request)


def _has_posted(one: Any) -> bool:
    return bool(one.request.call or one.error or one.request.joined_s is not None)


class Listening:
    """A step loop whose events are kept by request. `tally` is the loop's."""

    def __init__(
        self, denoiser: Any, cap: int, clock: Callable[[], float] = time.monotonic, step_s: Sequence[float] = ()
    ) -> None:
        self.tally = Tally()
        times = WarmUpTimes(cap, tuple(step_s) or (0.01,) * cap, 0.001)
        self.loop = StepLoop(denoiser, times, self._hear, self.tally, clock)
        self.ended: list[Any] = []
        self._heard: list[tuple[RunningRequest, StepEvent]] = []
        self._condition = threading.Condition()  # re-entrant: waiting reads too
        self._threads: list[threading.Thread] = []

    def _hear(self, deliveries: Deliveries) -> None:
        with self._condition:
            self._heard += deliveries
            self._condition.notify_all()

    def post(self, *scripted: Any) -> None:
        """Start their threads one after the other; each has asked for its first step when the next begins."""
        for one in scripted:
            thread = threading.Thread(target=self._run, args=(one,), daemon=True)
            thread.start()
            self._threads.append(thread)
            with self.loop._condition:
                assert self.loop._condition.wait_for(partial(_has_posted, one), WAIT_S)

    def _run(self, one: Any) -> None:
        one.run(self.loop)
        with self._condition:
            self.ended.append(one)
            self._condition.notify_all()

    def finished(self) -> list[RunningRequest]:
        """Requests in the order of their last steps."""
        with self._condition:
            return [
                heard for heard, event in self._heard if isinstance(event, StepDone) and event.step == heard.num_steps
            ]

    def events(self, one: Any) -> list[StepEvent]:
        """What was said about a request so far."""
        with self._condition:
            return [event for heard, event in self._heard if heard is one.request]

    def wait_for_end(self, *scripted: Any) -> None:
        """Return when each of them is done or has failed."""
        with self._condition:
            met = self._condition.wait_for(lambda: all(one in self.ended for one in scripted), WAIT_S)
        assert met, [self.events(one)[-1:] for one in scripted]


@pytest.fixture
def listen() -> Iterator[Callable[..., Listening]]:
    """`listen(denoiser, cap, clock, step_s)`: a loop, not started yet; stopped after the test."""
    made: list[Listening] = []

    def make(
        denoiser: Any, cap: int, clock: Callable[[], float] = time.monotonic, step_s: Sequence[float] = ()
    ) -> Listening:
        made.append(Listening(denoiser, cap, clock, step_s))
        return made[-1]

    yield make
    for one in made:
        if one.loop._thread.ident is not None:
            one.loop.stop(WAIT_S)


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted


class InLoop:
    """A job that runs through a step loop in a thread; `latent` is its final one."""

    def __init__(self, parts: SharedParts, job: Job, start: Tensor | None = None) -> None:
        fetched: Future[StartLatent] = Future()
        fetched.set_result(StartLatent(start, job.level.skipped_steps if start is not None else 0, ""))
        self.request = RunningRequest(job.level.num_inference_steps)
        self.stock = PipelineRun(parts, job, self.request, fetched)
        self.stock.keep = frozenset({job.level.num_inference_steps})
        self.error: Exception | None = None
        self.latent: Tensor

    def run(self, _: StepLoop) -> None:
        try:
            drawn = self.stock.draw()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        else:
            self.latent = drawn.kept[self.request.num_steps]


@pytest.fixture
def in_loop() -> type[InLoop]:
    return InLoop
