"""Hearing: how long others have been silent, by a clock that stands still while this process does.

A gateway that was stopped, swapped out or starved finds old timers due before it has read what came meanwhile. Were
silence taken from the clock on the wall, it would find all its workers dead in that moment. So silence is looked at
every `LISTEN_EVERY_S`, and what passed between two looks counts as `MAX_LOOK_S` at most: after any stall there is time
to read first.
"""

from collections.abc import Callable

LISTEN_EVERY_S = 0.25
MAX_LOOK_S = 2 * LISTEN_EVERY_S


class StallFreeClock:
    """Seconds in which this process could hear. Somebody must call `look` every `LISTEN_EVERY_S`."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._looked_s = clock()
        self._heard_s = 0.0

    def now_s(self) -> float:
        """The time; never goes back."""
        return self._heard_s + min(MAX_LOOK_S, self._clock() - self._looked_s)

    def look(self) -> None:
        """It is awake."""
        self._heard_s, self._looked_s = self.now_s(), self._clock()
