"""A request's own copy of the pipeline's noise scheduler. Its `step` is where the engine looks into a stock pipeline.

The copy counts steps, keeps the latents that enter some of them, and puts a stored latent in. To resume at step K the
pipeline makes its first K steps as always. But the denoiser is not called and nothing is computed: the last of these
steps returns the stored latent. Samplers that draw noise draw that of the skipped steps too. So their generator stands
where a full run's would. Samplers with a history of several steps resume without it, at first order; profiles measure K
as it is. PNDM cannot: it makes its second step twice to gain a history. So a run that means to skip steps uses DDIM on
PNDM's noise levels. Its latents are of the same kind.
"""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import DDIMScheduler, PNDMScheduler, SCMScheduler
from torch import Tensor

from t2i_runtime.errors import Violation
from t2i_worker.errors import JobInvalid

HOOKED = ("step", "set_timesteps")


class StartRefused(Exception):
    """The stored latent has another shape or type than the pipeline's own."""


@dataclass(frozen=True, slots=True)
class Start:
    """Enter step `step` with `latent` [1, ...], without the steps before it. None: from the pipeline's own noise.

    A final latent is noised anew to this step, by the pipeline's own noise. After the last step it is the image.
    """

    latent: Tensor | None = None
    step: int = 0
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class StepTaken:
    """`step` steps are done. `output` is what the scheduler's `step` returned."""

    step: int
    prediction: Tensor
    sample: Tensor
    output: Any


def for_resuming(template: Any) -> Any:
    """The noise scheduler of a run that means to skip steps."""
    if not isinstance(template, PNDMScheduler):
        return template
    known = inspect.signature(DDIMScheduler.__init__).parameters
    options = {name: value for name, value in template.config.items() if name in known}
    return DDIMScheduler(**{**options, "clip_sample": False})


class OwnScheduler:
    """`scheduler` is the copy that the pipeline gets. `start` may be set until the first step.

    `field` is what the request has to change if the scheduler makes no schedule.
    """

    def __init__(
        self,
        template: Any,
        num_steps: int,
        on_step: Callable[[StepTaken], None],
        keep: frozenset[int] = frozenset(),
        field: str = "level.num_inference_steps",
        generator: torch.Generator | None = None,
    ) -> None:
        self.scheduler = copy.deepcopy(template)
        self.start = Start()
        self.kept: dict[int, Tensor] = {}
        self.calls = 0  # of the scheduler's `step`
        self._own_noise: Tensor | None = None  # of unit strength
        self._num_steps = self._steps_to_run = num_steps
        self._calls: int | None = None
        self._on_step = on_step
        self._keep = keep
        self._field = field
        self._generator = generator
        self._begin = 0
        self._step, self._set_timesteps = self.scheduler.step, self.scheduler.set_timesteps
        self._parameters = _parameters_of(template.__class__)
        # Pipelines read the signatures: of `step` to see whether it takes a generator, of the other for its schedules.
        self.scheduler.step = _hook(self._step, self._take_step)
        self.scheduler.set_timesteps = _hook(self._set_timesteps, self._make_schedule)

    def let_go(self) -> None:
        """Undo the hooks after the run. They refer to each other, so tensors would wait for the garbage collector."""
        for name in HOOKED:
            self.scheduler.__dict__.pop(name, None)

    def run_only(self, num_calls: int, num_steps: int) -> None:
        """The pipeline runs only the end of its schedule: so many calls of `step`, which are so many steps."""
        self._calls, self._steps_to_run = num_calls, num_steps

    @property
    def skips(self) -> bool:
        """Whether the step that comes is skipped, so that nobody needs a prediction for it."""
        return self.calls < self._skipped_calls

    @property
    def step(self) -> int:
        """The step of the schedule that comes."""
        return self.calls * self._num_steps // max(1, self._total)

    @property
    def timestep(self) -> float:
        begin = self._begin if self.calls else self._begin_index
        return float(self.scheduler.timesteps[begin + self.calls])

    def estimate(self, taken: StepTaken) -> Tensor:
        """The clean latent that this step was heading for; the noisy one where the sampler does not say."""
        output, scheduler = taken.output, self.scheduler
        found: Any = None
        if isinstance(output, tuple):
            found = output[1] if len(output) > 1 else None
        else:
            found = getattr(output, "pred_original_sample", None)
        if found is None and hasattr(scheduler, "model_outputs") and _keeps_estimates(scheduler.config):
            found = scheduler.model_outputs[-1]
        if found is None and type(scheduler).__name__.startswith("FlowMatchEuler"):
            sigma = scheduler.sigmas[scheduler.step_index - 1].to(taken.sample.device)
            found = taken.sample - sigma * taken.prediction
        if isinstance(found, Tensor) and found.shape == taken.sample.shape:
            return found.to(taken.sample.dtype)
        return taken.sample

    @property
    def _skipped_calls(self) -> int:
        return min(self._first_call(self.start.step), self._total)

    @property
    def _begin_index(self) -> int:
        return getattr(self.scheduler, "_begin_index", None) or 0

    @property
    def _total(self) -> int:
        """Calls of `step` in the whole run. SCM lists the end of its last step too."""
        calls = len(self.scheduler.timesteps) - self._begin if self._calls is None else self._calls
        return calls - isinstance(self.scheduler, SCMScheduler)

    def _first_call(self, step: int) -> int:
        """The call of `scheduler.step` that a step begins with; -1 if none does.

        Samplers of order 2 make two calls a step. PNDM makes two for its second step only, or a whole start of its own.
        """
        if isinstance(self.scheduler, PNDMScheduler):
            return step + (step > 0) if self.scheduler.config.skip_prk_steps else -1
        return step * int(getattr(self.scheduler, "order", 1))

    def _make_schedule(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._set_timesteps(*args, **kwargs)
        except Exception as error:  # each scheduler says no in its own way
            sentence = f"{type(self.scheduler).__name__} makes no schedule of {self._num_steps} steps"
            raise JobInvalid([Violation(self._field, sentence)]) from error

    def _take_step(self, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        # The names are those of diffusers: some pipelines pass these by name.
        if "generator" in self._parameters and kwargs.get("generator") is None:
            kwargs["generator"] = self._generator  # or a sampler draws noise that no seed repeats
        if self.calls == 0:
            self._begin = self._begin_index
            self._check_start(sample)
            self._own_noise = sample / float(getattr(self.scheduler, "init_noise_sigma", 1.0))
        for step in self._keep:
            if self.calls == self._first_call(step):
                self.kept[step] = sample.clone()
        if self.skips:
            return self._skip(model_output, sample, args, kwargs)
        if "order" in self._parameters and self.start.step:
            # LMS would use slopes of steps that a resumed run has not made.
            kwargs["order"] = min(self.calls - self.start.step + 1, self._parameters["order"].default)
        output = self._step(model_output, timestep, sample, *args, **kwargs)
        self.calls += 1
        if self.calls == self._total and self._num_steps in self._keep:
            self.kept[self._num_steps] = output[0] if isinstance(output, tuple) else output.prev_sample
        steps = self._steps_to_run
        done, before = (calls * steps // max(1, self._total) for calls in (self.calls, self.calls - 1))
        if done > before:
            self._on_step(StepTaken(min(done, steps), model_output, sample, output))
        return output

    def _check_start(self, sample: Tensor) -> None:
        latent = self.start.latent
        if latent is not None and (latent.shape, latent.dtype) != (sample.shape, sample.dtype):
            raise StartRefused

    def _skip(self, prediction: Tensor, sample: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        begins = self._skipped_calls
        if self.calls == 0 and kwargs.get("generator") is not None:
            self._draw_skipped(begins, prediction, sample, args, kwargs)
        self.calls += 1
        entering = sample
        if self.calls == begins:
            entering = self._entering(sample.device)
            for name, value in (("_step_index", None), ("_begin_index", self._begin + begins)):
                if hasattr(self.scheduler, name):
                    setattr(self.scheduler, name, value)
        if kwargs.get("return_dict") is False:
            return entering, entering
        return SimpleNamespace(prev_sample=entering, pred_original_sample=entering)

    def _entering(self, device: torch.device) -> Tensor:
        """The latent that enters the first step that is computed."""
        latent, skipped = self.start.latent, self._skipped_calls
        if latent is None or self._own_noise is None:
            raise StartRefused
        if self.start.is_final and skipped < self._total:
            return self._noised(latent.to(device), self._own_noise.to(device), self._begin + skipped)
        return latent.to(device).clone()

    def _noised(self, final: Tensor, noise: Tensor, index: int) -> Tensor:
        """Noise a final latent by unit noise, to the level at which the step at `index` is entered."""
        scheduler = self._scratch()
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(index)
            scheduler._step_index = None
        at = scheduler.timesteps[index : index + 1]
        if isinstance(scheduler, SCMScheduler):  # its times are angles, and it has no method for this
            at = at.to(final.device, final.dtype)
            return torch.cos(at) * final + torch.sin(at) * noise
        if hasattr(scheduler, "scale_noise"):
            noised: Tensor = scheduler.scale_noise(final, at, noise)
        else:
            noised = scheduler.add_noise(final, noise, at)
        return noised

    def _draw_skipped(
        self, count: int, prediction: Tensor, sample: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Advance the generator past the noise of the first `count` steps.

        Only the scheduler knows how much noise a step draws. So a copy of it makes these steps on a zero latent.
        """
        scheduler, generator = self._scratch(), kwargs["generator"]
        nothing, before = torch.zeros_like(sample), generator.get_state()
        for index in range(self._begin, self._begin + count):
            at = scheduler.timesteps[index]
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input(nothing, at)
            scheduler.step(torch.zeros_like(prediction), at, nothing, *args, **kwargs)
            if index == self._begin and torch.equal(generator.get_state(), before):
                return  # a sampler that draws no noise at its first step draws none later

    def _scratch(self) -> Any:
        """A copy of the scheduler as it is, without our hooks."""
        hooks = {name: self.scheduler.__dict__.pop(name) for name in HOOKED}
        try:
            return copy.deepcopy(self.scheduler)
        finally:
            self.scheduler.__dict__.update(hooks)


@functools.cache
def _parameters_of(scheduler: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(scheduler.step).parameters  # type: ignore[attr-defined]


def _keeps_estimates(config: Mapping[str, Any]) -> bool:
    """Whether a sampler's history holds clean estimates and not predicted noise."""
    return bool(config.get("predict_x0")) or str(config.get("algorithm_type", "")).endswith("dpmsolver++")


def _hook(real: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """A function that does ours and shows the signature of the real one."""

    @functools.wraps(real)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        return ours(*args, **kwargs)

    return hooked
