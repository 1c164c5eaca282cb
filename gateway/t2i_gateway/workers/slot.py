"""A slot: the place of one request at a worker, and the steps that it still owes."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any


@dataclass(slots=True, eq=False)
class Slot:
    """`is_held` until its last step is done; `may_move` until a byte of its image has been sent.

    `connection_number` is `WorkerConnection.number` when the request was sent. `deadline_s` is by the gateway's clock.
    `step_cost`: what each step costs, in steps of the pool's default size. `step_share`: what part of its steps the
    denoiser runs, as its level forecasts some or leaves their guidance out.
    """

    connection_number: int
    steps: int
    changed: Callable[[], None]
    deadline_s: float = inf
    step_cost: float = 1.0
    step_share: float = 1.0
    steps_left: int = field(init=False)
    is_held: bool = True
    may_move: bool = True
    _given_up: bool = False
    _reading: Any = None  # the call

    def __post_init__(self) -> None:
        self.steps_left = self.steps

    @property
    def owed_steps(self) -> float:
        """What the denoiser still has to run for it."""
        return self.steps_left * self.step_share

    async def read(self, call: Any) -> Any:
        """What the worker sends next.

        Raises:
            TimeoutError: its worker was given up.
        """
        if self._given_up:
            raise TimeoutError
        self._reading = call
        try:
            return await call.read()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._given_up and not (task and task.cancelling()):
                raise TimeoutError from None
            raise
        finally:
            self._reading = None

    def give_up(self) -> None:
        """End what is read now or next with TimeoutError."""
        self._given_up = True
        if self._reading is not None:
            self._reading.cancel()

    def start(self, steps: int) -> None:
        """The worker took it into its batch, with this many steps to do."""
        self.steps = self.steps_left = steps

    def step_to(self, steps_left: int) -> None:
        """The worker reported progress. Without steps to do its place in the batch is free; the image is on its way."""
        self.steps_left = steps_left
        if not steps_left and self.is_held:
            self.is_held = False
            self.changed()
