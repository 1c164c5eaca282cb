"""Noise schedules: each request owns a noise scheduler, so requests at different steps share a forward and no state.

Schedulers must make one forward a step and keep at most a multistep history, which a resumed request simply starts
without (their first step is of lower order). Others (PNDM, Heun: several forwards a step) are replaced by Euler on the
same noise levels, as diffusers' documentation does when it swaps schedulers.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from torch import Tensor

SetTimesteps = Callable[[int], Mapping[str, Any]]


def by_count(num_inference_steps: int) -> Mapping[str, Any]:
    """What `set_timesteps` takes for most models."""
    return {"num_inference_steps": num_inference_steps}


def servable(scheduler: Any) -> Any:
    """The scheduler itself if it steps once a forward, else an Euler one of the same configuration."""
    one_a_step = getattr(scheduler, "order", 1) == 1 and "skip_prk_steps" not in scheduler.config
    return scheduler if one_a_step else EulerDiscreteScheduler.from_config(scheduler.config)


class NoiseSchedule:
    """One request's schedule of `num_inference_steps` steps, starting at step `begin`. Not shared, not thread-safe."""

    def __init__(self, template: Any, timesteps: Mapping[str, Any], begin: int, seed: int) -> None:
        scheduler = type(template).from_config(template.config)
        scheduler.set_timesteps(**timesteps)
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        self._scheduler = scheduler
        self._options: dict[str, Any] = {"return_dict": True}
        if "generator" in inspect.signature(scheduler.step).parameters:
            self._options["generator"] = torch.Generator().manual_seed(seed ^ 0x5EED)

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
        moved = self._scheduler.step(prediction, self._scheduler.timesteps[step], latent, **self._options)
        advanced: Tensor = moved.prev_sample
        return advanced

    def clean_estimate(self, prediction: Tensor, latent: Tensor, step: int) -> Tensor:
        """What the latent is heading for, for previews: exact for flow matching, else the latent itself."""
        if isinstance(self._scheduler, FlowMatchEulerDiscreteScheduler):
            sigma: Tensor = self._scheduler.sigmas[step]
            return latent - sigma.to(latent.dtype) * prediction
        return latent
