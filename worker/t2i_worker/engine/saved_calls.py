"""The calls of one run's denoiser under a level: which reach the device, and what answers the others.

A forecast step makes no call of the device. A step after the last guided one runs the prompted part alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import DDPMScheduler, LCMScheduler, PNDMScheduler, SASolverScheduler, TCDScheduler
from torch import Tensor

from t2i_policy.level import Level
from t2i_runtime.errors import Violation
from t2i_worker.engine.forecasting import Forecast
from t2i_worker.engine.guidance import half_of
from t2i_worker.engine.meeting import DenoiserCall, SignatureReader, join_outputs
from t2i_worker.engine.noise_scheduler import OwnScheduler
from t2i_worker.errors import JobInvalid
from t2i_worker.pipelines import PromptedPart

NOISY = (DDPMScheduler, LCMScheduler, TCDScheduler, PNDMScheduler, SASolverScheduler)


def check_savings(level: Level, scheduler: Any, prompted: PromptedPart | None) -> None:
    """Refuse what this model cannot do.

    Raises:
        JobInvalid: its sampler adds noise of its own or calls twice a step; its guidance has no rows to leave out.
    """
    violations = []
    if level.forecasts and not forecasts(scheduler):
        name = type(scheduler).__name__
        violations.append(Violation("level.forecast", f"{name} draws noise or repeats steps; name another solver"))
    if level.guided_steps and prompted is None:
        said = "this worker found no rows without the prompt to leave out, as distilled models have none"
        violations.append(Violation("level.guided_steps", said))
    if violations:
        raise JobInvalid(violations)


def forecasts(scheduler: Any) -> bool:
    """Whether its steps follow a smooth path, one call each."""
    config, name = scheduler.config, type(scheduler).__name__
    draws = "sde" in str(config.get("algorithm_type", "")) or bool(config.get("stochastic_sampling"))
    noisy = isinstance(scheduler, NOISY) or "Ancestral" in name or "LCM" in name or draws
    return not noisy and int(getattr(scheduler, "order", 1)) == 1


class SavedCalls:
    """For one run. `meet` runs a call on the device."""

    def __init__(
        self,
        level: Level,
        prompted: PromptedPart | None,
        reader: SignatureReader,
        meet: Callable[[DenoiserCall], Any],
    ) -> None:
        self._level = level
        self._prompted = prompted
        self._reader = reader
        self._meet = meet
        self._forecasts: dict[int, Forecast] = {}  # by the number of the call in its step
        self._at = -1
        self._number = 0
        self._first = 0
        self._doubles = False  # whether a call has its latents twice: with the prompt, and without
        self._prompted_answer: Any = None

    @property
    def saves(self) -> bool:
        return bool(self._level.forecasts or self._level.guided_steps)

    def is_forecast(self, step: int) -> bool:
        return not self._level.computes(step, self._first)

    def answer(self, own: OwnScheduler, call: DenoiserCall) -> Any:
        """What the pipeline gets for a call of the step that comes. Every step's calls come in the same order."""
        if own.calls != self._at:
            if self._at < 0:
                self._first = own.step
                self._doubles = call.rows % 2 == 0 and _is_doubled(call.arguments)
            self._at, self._number = own.calls, -1
        self._number += 1
        part = None if self._level.guides(own.step) else self._prompted
        if part is not None and part.half is None and self._number > 0:
            output = self._prompted_answer
        elif self.is_forecast(own.step):
            output = self._forecasts[self._number].at(own.timestep)
            if part is not None and part.half is not None and self._doubles:
                half = half_of(output, call.rows, part.half)
                output = join_outputs(half, half, call.rows // 2)
        else:
            output = self._compute(call, part)
        if not self.is_forecast(own.step):
            self._forecasts.setdefault(self._number, Forecast()).learn(own.timestep, output)
        if part is not None and self._number == 0:
            self._prompted_answer = output
        return output

    def _compute(self, call: DenoiserCall, part: PromptedPart | None) -> Any:
        if part is None or part.half is None or not self._doubles:
            return self._meet(call)
        output = self._meet(self._reader.read(self._half(call, part.half)))
        return join_outputs(output, output, call.rows // 2)

    def _half(self, call: DenoiserCall, half: int) -> Mapping[str, Any]:
        shared = self._reader.shared
        return {
            name: value if name in shared else half_of(value, call.rows, half) for name, value in call.arguments.items()
        }


def _is_doubled(arguments: Mapping[str, Any]) -> bool:
    """Guidance in one call asks for the same latents twice."""
    for value in arguments.values():
        if isinstance(value, Tensor) and value.dim():
            first, second = value.chunk(2)
            return torch.equal(first, second)
        if isinstance(value, list) and value and isinstance(value[0], Tensor):
            count = len(value) // 2
            return all(torch.equal(*pair) for pair in zip(value[:count], value[count:], strict=True))
    return False
