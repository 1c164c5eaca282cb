"""Noise schedules. Each request owns a noise scheduler, so requests at different steps share a forward pass only.

A scheduler must make one forward pass a step. It may keep a multistep history, which a resumed request starts without:
its first step then has a lower order. Schedulers with several passes a step (PNDM, Heun) are replaced by Euler on the
same noise levels, as diffusers' documentation does when it swaps schedulers.

Samplers that add noise draw it as a stock pipeline does: one generator with the request's seed gives the start noise,
then the noise of each step. A resumed request continues that stream where a full run would be.
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

LMS_ORDER = 4  # the order that stock pipelines use


def servable(scheduler: Any) -> Any:
    """The scheduler itself if it makes one forward pass a step, else an Euler scheduler with the same noise levels.

    Its class decides, not its configuration: `skip_prk_steps` of PNDM stays in the configuration of schedulers that
    were made from one.
    """
    if getattr(scheduler, "order", 1) == 1 and not isinstance(scheduler, PNDMScheduler):
        return scheduler
    flows = isinstance(scheduler, FlowMatchHeunDiscreteScheduler)
    euler = FlowMatchEulerDiscreteScheduler if flows else EulerDiscreteScheduler
    # Not `from_config`: it drops values that the other class had by default, and Euler's default noise levels differ.
    known = inspect.signature(euler.__init__).parameters
    return euler(**{name: value for name, value in scheduler.config.items() if name in known})


@dataclass(frozen=True, slots=True)
class NoiseSource:
    """The seed of a request's noise, and the shape and type of the latent that one draw fills."""

    seed: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def zeros(self) -> Tensor:
        """On the CPU, as all noise."""
        return torch.zeros(self.shape, dtype=self.dtype)

    def generator(self) -> torch.Generator:
        """The generator in its state after the start noise."""
        generator = torch.Generator().manual_seed(self.seed)
        torch.randn(self.shape, generator=generator, dtype=self.dtype)
        return generator


class NoiseSchedule:
    """The schedule of one request, which starts at step `begin`. Never share it: it has state."""

    def __init__(self, template: Any, timesteps: Mapping[str, Any], begin: int, noise: NoiseSource) -> None:
        self._scheduler = _made_from(template, timesteps, begin)
        taken = inspect.signature(self._scheduler.step).parameters
        self._options: dict[str, Any] = {"return_dict": True}
        if "eta" in taken:
            self._options["eta"] = 0.0  # as stock pipelines do; the scheduler's own default may differ
        if "generator" in taken:
            generator = noise.generator()
            if begin:  # move the generator to where a full run would be
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
        """The factor for unit noise before the first step."""
        return float(getattr(self._scheduler, "init_noise_sigma", 1.0))

    def noise_at(self, noise: Tensor, step: int) -> Tensor:
        """Scale unit noise to its strength in the latent that enters this step; same shape.

        Every scheduler adds noise linearly. So a zero latent plus noise is the noise's share alone.
        """
        at, nothing = self._scheduler.timesteps[step : step + 1], torch.zeros_like(noise)
        if hasattr(self._scheduler, "scale_noise"):
            share: Tensor = self._scheduler.scale_noise(nothing, at, noise)
        else:
            share = self._scheduler.add_noise(nothing, noise, at)
        return share

    def model_input(self, latent: Tensor, step: int) -> Tensor:
        """The latent as the model takes it at this step; same shape."""
        if not hasattr(self._scheduler, "scale_model_input"):
            return latent
        scaled: Tensor = self._scheduler.scale_model_input(latent, self._scheduler.timesteps[step])
        return scaled

    def advance(self, prediction: Tensor, latent: Tensor, step: int) -> Tensor:
        """The latent after this step."""
        if self._limits_order:  # LMS would use derivatives of steps that a resumed run has not made
            self._options["order"] = min(step - self._begin + 1, LMS_ORDER)
        moved = self._scheduler.step(prediction, self._scheduler.timesteps[step], latent, **self._options)
        advanced: Tensor = moved.prev_sample
        return advanced

    def clean_estimate(self, prediction: Tensor, latent: Tensor, step: int) -> Tensor:
        """The latent that a preview shows: the model's estimate for flow matching, else the noisy latent itself."""
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
    """Advance the generator past the noise of the first `count` steps.

    Only the scheduler knows how much noise a step draws. So it makes these steps on a zero latent.
    """
    nothing, generator = noise.zeros(), options["generator"]
    before = generator.get_state()
    for step in range(count):
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(nothing, scheduler.timesteps[step])
        scheduler.step(nothing, scheduler.timesteps[step], nothing, **options)
        if step == 0 and torch.equal(generator.get_state(), before):
            return  # a sampler that draws no noise at its first step draws none later
