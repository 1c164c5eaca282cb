"""One request inside the step loop, and the events that the loop sends about it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from t2i_worker.engine.meeting import DenoiserCall


class Left(Exception):
    """Unwinds the stock pipeline of a request that nobody waits for any more."""


def _taken_lock() -> threading.Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


@dataclass(slots=True, eq=False)
class RunningRequest:
    """Any thread may set `cancelled`, and nobody unsets it. The step loop's lock guards the rest.

    `step` of `num_steps` steps are done, skipped ones included; each costs `step_cost` of the default size. The
    denoiser runs `step_share` of them, by its level. While the request waits for an answer of the denoiser, `call` is
    what it asked; its thread sleeps until `turn` is released. `background`: it makes way for requests that are not.
    """

    num_steps: int
    deadline_s: float | None = None
    step_cost: float = 1.0
    step_share: float = 1.0
    background: bool = False
    step: int = 0
    joined_s: float | None = None
    denoised_s: float | None = None
    cancelled: bool = False
    call: DenoiserCall | None = None
    answer: Any = None
    turn: threading.Lock = field(default_factory=_taken_lock)

    @property
    def steps_left(self) -> int:
        return self.num_steps - self.step

    @property
    def owed_steps(self) -> float:
        """What the denoiser still has to run for it."""
        return self.steps_left * self.step_share


@dataclass(frozen=True, slots=True)
class StepEntered:
    """The request joined a batch of this size."""

    batch_size: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """`step` steps are done, skipped ones included. `preview` [1, ...] is set when one is due.

    `is_forecast`: the last of them did not run the denoiser.
    """

    step: int
    preview: Tensor | None
    is_forecast: bool = False


StepEvent = StepEntered | StepDone
Deliveries = Sequence[tuple[RunningRequest, StepEvent]]
