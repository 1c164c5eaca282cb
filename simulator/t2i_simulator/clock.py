"""Virtual time: a queue of events by instant, then by the order in which they were set. Nothing here waits."""

import heapq
import itertools
from collections.abc import Callable
from math import inf
from typing import Any

Handler = Callable[[float, Any], None]
Progress = Callable[[int], None]


def silent(done: int) -> None:
    """Report no progress. `done` counts requests or prompts."""


class Clock:
    def __init__(self) -> None:
        self._events: list[tuple[float, int, Handler, Any]] = []
        self._numbers = itertools.count()

    @property
    def next_s(self) -> float:
        """The instant of the next event; inf without one."""
        return self._events[0][0] if self._events else inf

    def at(self, at_s: float, handler: Handler, argument: Any = None) -> None:
        """Call `handler(at_s, argument)` at that instant."""
        heapq.heappush(self._events, (at_s, next(self._numbers), handler, argument))

    def step(self) -> None:
        """Run the handler of the next event."""
        at_s, _, handler, argument = heapq.heappop(self._events)
        handler(at_s, argument)
