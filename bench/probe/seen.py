"""What an early look at a run sees: a few hundred numbers an image, from tensors that the worker holds anyway."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity

from bench.kit.caption_runs import Floats

TINY = 1e-6
PATCHES = 4  # to a side: how unlike the parts of a picture are


class SeenStep(NamedTuple):
    """A computed step: latents that enter it, outputs of prompted and other rows, all [B,C,h,w]; `inner` [B,c,h',w'] is
    what the middle of the denoiser made of the prompted rows, `forecast` what the outputs before would have said."""

    sigma: float
    latents: Tensor
    prompted: Tensor
    unprompted: Tensor
    inner: Tensor
    forecast: Tensor | None


@dataclass(frozen=True, slots=True)
class SeenEarly:
    """The clean estimate [B,C,h,w] of the last computed step, and numbers [B,k] by what they are of."""

    estimate: Tensor
    groups: dict[str, Floats]


def look_features(steps: Sequence[SeenStep], guidance: float, stored: Tensor | None) -> SeenEarly:
    """`stored` [B,C,h,w]: the final latents that the runs started from, if they did."""
    velocities = [one.unprompted + guidance * (one.prompted - one.unprompted) for one in steps]
    estimates = [one.latents - one.sigma * velocity for one, velocity in zip(steps, velocities, strict=True)]
    last, estimate = steps[-1], estimates[-1]
    motion = [_change(velocity, one.unprompted) for one, velocity in zip(steps, velocities, strict=True)]
    motion += [_change(later, before) for before, later in pairwise(estimates)]
    motion += [_change(later, before) for before, later in pairwise(velocities)]
    if last.forecast is not None:
        motion.append(_change(velocities[-1], last.forecast))
    if stored is not None:
        motion.append(_change(estimate, stored))
    groups = {"estimate": _picture(estimate), "motion": torch.cat(motion, 1), "inner": _pooled(last.inner)}
    return SeenEarly(estimate, {name: _floats(values) for name, values in groups.items()})


def _change(one: Tensor, other: Tensor) -> Tensor:
    """How far two are apart: relative, in the patch where most, how unequal over patches, and in direction. [B,4]"""
    apart = _patches((one - other) ** 2)
    size = _patches(one**2).mean(1)
    whole = (apart.mean(1) / (size + TINY)).sqrt()
    worst = (apart.max(1).values / (size + TINY)).sqrt()
    uneven = apart.std(1) / (apart.mean(1) + TINY)
    return torch.stack([whole, worst, uneven, cosine_similarity(one.flatten(1), other.flatten(1))], 1)


def _patches(values: Tensor) -> Tensor:
    """Means over channels and patches, [B,16]."""
    return adaptive_avg_pool2d(values.mean(1, keepdim=True), PATCHES).flatten(1)


def _picture(estimate: Tensor) -> Tensor:
    """Channels' means and spreads, how rough it is, how far it goes, and how that differs over patches."""
    across = (estimate[..., 1:] - estimate[..., :-1]).pow(2).mean((1, 2, 3))
    down = (estimate[..., 1:, :] - estimate[..., :-1, :]).pow(2).mean((1, 2, 3))
    spread = estimate.var((1, 2, 3))
    rough = torch.stack([across, down, (across + down) / (spread + TINY), spread, estimate.abs().amax((1, 2, 3))], 1)
    busy = _patches((estimate - adaptive_avg_pool2d(estimate, 1)) ** 2)
    return torch.cat([estimate.mean((2, 3)), estimate.std((2, 3)), rough, busy.sort(1).values], 1)


def _pooled(inner: Tensor) -> Tensor:
    return torch.cat([inner.mean((2, 3)), inner.std((2, 3))], 1)


def _floats(values: Tensor) -> Floats:
    found: np.ndarray[Any, np.dtype[np.float64]] = values.to(torch.float64).numpy()
    return found
