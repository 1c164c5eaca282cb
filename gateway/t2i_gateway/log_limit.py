"""Lines of one kind in the log: one in LOG_EVERY_S is written, and says how many were left out before it."""

from collections.abc import Callable
from math import inf

LOG_EVERY_S = 10.0


class LogLimit:
    """For one kind of line about one thing. `clock`: seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._written_s = -inf
        self._left_out = 0

    def take(self) -> str | None:
        """What ends the line; None: write none now."""
        now_s = self._clock()
        if now_s - self._written_s < LOG_EVERY_S:
            self._left_out += 1
            return None
        left_out, self._written_s, self._left_out = self._left_out, now_s, 0
        return f"; {left_out} more since the line before" if left_out else ""
