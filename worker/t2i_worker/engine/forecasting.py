"""Calls of the denoiser that are answered without the device, or by half of it: forecast steps and unguided ones.

A forecast extrapolates the request's own last outputs by Lagrange's polynomial over the timesteps, of first order
(TaylorSeer, arXiv 2503.06923, at the level of outputs). The request's noise scheduler then makes its step as always.
Two known outputs come first, so the first two steps that run are always computed.

Guidance compares a prompted output with an unprompted one. After the last guided step only the prompted part runs, and
its output stands for both: uncond + g * (cond - uncond) is then the prompted output itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from t2i_worker.engine.meeting import over_tensors

KNOWN = 2  # outputs that a forecast of first order needs


class KnownOutput(NamedTuple):
    timestep: float
    output: Any


@dataclass(slots=True)
class Forecast:
    """The last outputs of one call of each step, the newest last."""

    known: list[KnownOutput] = field(default_factory=list)

    def learn(self, timestep: float, output: Any) -> None:
        self.known = [*self.known[1 - KNOWN :], KnownOutput(timestep, output)]

    def at(self, timestep: float) -> Any:
        """What the denoiser would say at this timestep, of the structure of its outputs."""
        weights = [self._weight(one, timestep) for one in self.known]
        return combine([one.output for one in self.known], weights)

    def _weight(self, one: KnownOutput, timestep: float) -> float:
        weight = 1.0
        for other in self.known:
            if other is not one:
                weight *= (timestep - other.timestep) / (one.timestep - other.timestep)
        return weight


def combine(outputs: Sequence[Any], weights: Sequence[float]) -> Any:
    """The weighted sum of outputs of one structure; what is no tensor comes from the last."""

    def weighted(*tensors: Tensor) -> Tensor:
        total = tensors[0] * weights[0]
        for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
            total = total + tensor * weight
        return total

    return over_tensors(weighted, *outputs)
