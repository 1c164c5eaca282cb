"""Noise schedules: each request owns a noise scheduler, so requests at different steps share a forward and no state.

Schedulers must make one forward a step and keep at most a multistep history, which a resumed request simply starts
without (their first step is of lower order). Others (PNDM, Heun: several forwards a step) are replaced by Euler on the
same noise levels, as diffusers' documentation does when it swaps schedulers.

Samplers that add noise draw it as a stock pipeline does: one generator of the request's seed gives the start noise,
then the noise of each step. A resumed request goes on in that stream where a full run would be.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    PNDMScheduler,
)
from torch import Tensor

LMS_ORDER = 4  # what a stock pipeline asks for


def by_count(num_inference_steps: int) -> Mapping[str, Any]:
    """What `set_timesteps` takes for most models."""
    return {"num_inference_steps": num_inference_steps}


def servable(scheduler: Any) -> Any:
    """The scheduler itself if it steps once a forward, else an Euler one of the same noise levels.

    Its class tells, not its keys: `skip_prk_steps` of PNDM stays behind in the configuration of what is made of it.
    """
    if getattr(scheduler, "order", 1) == 1 and not isinstance(scheduler, PNDMScheduler):
        return scheduler
    flows = isinstance(scheduler, FlowMatchHeunDiscreteScheduler)
    euler = FlowMatchEulerDiscreteScheduler if flows else EulerDiscreteScheduler
    # `from_config` would drop what the other class took by default, and Euler's own defaults are other noise levels.
    known = inspect.signature(euler.__init__).parameters
    return euler(**{name: value for name, value in scheduler.config.items() if name in known})


@dataclass(frozen=True, slots=True)
class NoiseSource:
    """Where a request's noise comes from: its seed, and the shape and type of a latent that one draw fills."""

    seed: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def zeros(self) -> Tensor:
        """On the CPU, as all that is drawn."""
        return torch.zeros(self.shape, dtype=self.dtype)

    def generator(self) -> torch.Generator:
        """As it is after the start noise was drawn."""
        generator = torch.Generator().manual_seed(self.seed)
        torch.randn(self.shape, generator=generator, dtype=self.dtype)
        return generator


class NoiseSchedule:
    """One request's schedule of `num_inference_steps` steps, starting at step `begin`. Not shared, not thread-safe."""

    def __init__(self, template: Any, timesteps: Mapping[str, Any], begin: int, noise: NoiseSource) -> None:
        self._scheduler = _made_from(template, timesteps, begin)
        taken = inspect.signature(self._scheduler.step).parameters
        self._options: dict[str, Any] = {"return_dict": True}
        if "eta" in taken:
            self._options["eta"] = 0.0  # what stock pipelines pass; the scheduler's own default may be another
        if "generator" in taken:
            generator = noise.generator()
            if begin:
                _draw_steps(_made_from(template, timesteps, 0), begin, self._options | {"generator": generator}, noise)
            self._options["generator"] = generator
        self._limits_order = "order" in taken
        self._begin = begin

    @property
    def timesteps(self) -> Tensor:
        """[N], on the CPU."""
        steps: Tensor = self._scheduler.timesteps
        return steps

    @property
    def initial_scale(self) -> float:
        """What unit noise is multiplied by before the first step."""
        return float(getattr(self._scheduler, "init_noise_sigma", 1.0))

    def noise_at(self, noise: Tensor, step: int) -> Tensor:
        """Unit noise as strong as it is in the latent that enters this step; same shape.

        Every scheduler adds noise linearly, so what it makes of nothing plus noise is the noise's share alone.
        """
        at, nothing = self._scheduler.timesteps[step : step + 1], torch.zeros_like(noise)
        if hasattr(self._scheduler, "scale_noise"):
            share: Tensor = self._scheduler.scale_noise(nothing, at, noise)
        else:
            share = self._scheduler.add_noise(nothing, noise, at)
        return share

    def model_input(self, latent: Tensor, step: int) -> Tensor:
        """The latent as the model wants it at this step; same shape."""
        if not hasattr(self._scheduler, "scale_model_input"):
            return latent
        scaled: Tensor = self._scheduler.scale_model_input(latent, self._scheduler.timesteps[step])
        return scaled

    def advance(self, prediction: Tensor, latent: Tensor, step: int) -> Tensor:
        """The latent after this step."""
        if self._limits_order:  # LMS would weigh slopes of steps that a resumed run has not made
            self._options["order"] = min(step - self._begin + 1, LMS_ORDER)
        moved = self._scheduler.step(prediction, self._scheduler.timesteps[step], latent, **self._options)
        advanced: Tensor = moved.prev_sample
        return advanced

    def clean_estimate(self, prediction: Tensor, latent: Tensor, step: int) -> Tensor:
        """What the latent is heading for, for previews: exact for flow matching, else the latent itself."""
        if isinstance(self._scheduler, FlowMatchEulerDiscreteScheduler):
            sigma: Tensor = self._scheduler.sigmas[step]
            return latent - sigma.to(latent.dtype) * prediction
        return latent


def _made_from(template: Any, timesteps: Mapping[str, Any], begin: int) -> Any:
    scheduler = type(template).from_config(template.config)
    scheduler.set_timesteps(**timesteps)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    return scheduler


def _draw_steps(scheduler: Any, count: int, options: Mapping[str, Any], noise: NoiseSource) -> None:
    """Let a scheduler draw the noise of its first `count` steps. Only it knows how much that is, so it makes them."""
    nothing, generator = noise.zeros(), options["generator"]
    before = generator.get_state()
    for step in range(count):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(nothing, scheduler.timesteps[step])
        scheduler.step(nothing, scheduler.timesteps[step], nothing, **options)
        if step == 0 and torch.equal(generator.get_state(), before):
            return  # a sampler that draws nothing at its first of several steps draws nothing later
