"""What tests of the step loop share: a denoiser of tensor arithmetic that steps when it may."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

WAIT_S = 60.0


class ScriptedModel:
    """Stands for the denoiser: predicts weight * (timestep + 1). Each forward waits for a permit.

    `breaks(weights)` may return what to raise.
    """

    shared = ()
    graphs = None
    device = torch.device("cpu")

    def __init__(self, permits: int = 1000, breaks: Callable[[list[int]], Exception | None] | None = None) -> None:
        self.batches: list[list[int]] = []
        self._permits = permits
        self._breaks = breaks or (lambda _: None)
        self._condition = threading.Condition()

    def forward(self, arguments: Mapping[str, Any], adapters: Any = ()) -> Tensor:
        del adapters
        weights, timesteps = arguments["weight"], arguments["timestep"]
        with self._condition:
            self.batches.append([int(weight) for weight in weights])
            self._condition.notify_all()
            assert self._condition.wait_for(lambda: self._permits > 0, WAIT_S)
            self._permits -= 1
        if (error := self._breaks(self.batches[-1])) is not None:
            raise error
        return weights * (timesteps + 1)

    def allow(self, steps: int = 1000) -> None:
        with self._condition:
            self._permits += steps
            self._condition.notify_all()

    def wait_until_in_step(self, number: int) -> None:
        """Return when the model is inside its `number`-th forward, counted from 1."""
        with self._condition:
            assert self._condition.wait_for(lambda: len(self.batches) >= number, WAIT_S)


def result(weight: int, steps: int = 3) -> float:
    return float(weight * sum(range(1, steps + 1)))
