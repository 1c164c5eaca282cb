"""A lease: one request at one worker, the steps it still owes, and how long it has waited for what comes next."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from t2i_gateway.workers.connection import WorkerConnection


@dataclass(slots=True, eq=False)
class Slot:
    """See the module. `holds_slot` until its last step is done; `may_move` until a byte of its image has been sent.

    Instants are the link's listening clock's.
    """

    link: "WorkerConnection"
    steps: int
    steps_left: int
    holds_slot: bool = True
    may_move: bool = True
    limit_s: float = 0.0  # how long the present wait may take
    connection: int = field(init=False)  # the link's when it began
    _reported_s: float | None = None  # when its last step was reported; None before it started
    _since_s: float = 0.0  # when the present wait began
    _waiting: asyncio.Timeout | None = None

    def __post_init__(self) -> None:
        self.connection = self.link.connection

    @property
    def outdated(self) -> bool:
        """True if the link has another connection since."""
        return self.connection != self.link.connection

    async def next_event(self, call: Any, limit_s: float) -> Any:
        """What the worker sends next.

        Raises:
            TimeoutError: it did not come within `limit_s`, or its worker was given up for another reason.
        """
        self._since_s, self.limit_s = self.link.now_s(), limit_s
        try:
            async with asyncio.timeout(None) as self._waiting:
                event = await call.read()
        finally:
            self._waiting = None
        self.link.hear()
        return event

    def overdue(self, now_s: float) -> bool:
        """True if the present wait is too long."""
        return self._waiting is not None and now_s - self._since_s >= self.limit_s

    def wait_anew(self) -> None:
        """The worker was not heard for a while and is heard again: what comes next has its whole time from now on."""
        self._since_s = self.link.now_s()

    def give_up(self) -> None:
        """End the present wait, if there is one, with TimeoutError."""
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(0.0)

    def start(self, steps: int) -> None:
        """The worker took it into its batch, with this many steps to do."""
        self.steps = steps
        self._owe(steps)
        self._reported_s = self.link.now_s()

    def step_to(self, steps_left: int) -> None:
        """The worker reported progress."""
        done, since_s = self.steps_left - steps_left, self._reported_s
        if since_s is not None and done > 0:
            self.link.judge_report(since_s, done)
        self._reported_s = self.link.now_s()
        self._owe(steps_left)
        if steps_left == 0:
            self.give_up_slot()

    def pause(self) -> None:
        """What comes next took more than a step: it is not judged."""
        self._reported_s = None

    def _owe(self, steps_left: int) -> None:
        self.link.steps_left -= self.steps_left - steps_left
        self.steps_left = steps_left

    def give_up_slot(self) -> None:
        """Its place in the batch is free; the image is still on its way."""
        if self.holds_slot:
            self.holds_slot = False
            self.link.in_flight -= 1
            self.link.changed()

    def end(self) -> None:
        """The request is over, whichever way."""
        self.link.forget(self)
        self.link.steps_left -= self.steps_left
        self.steps_left = 0
        self.give_up_slot()
