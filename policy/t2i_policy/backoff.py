"""Pauses between tries that double: the first one after one failure, never longer than the last one."""

from collections.abc import Iterator
from dataclasses import dataclass

MAX_DOUBLINGS = 16  # far past every longest pause; what fails for weeks must not overflow


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait at first, and at most."""

    first_s: float
    most_s: float

    def pause_s(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row, at least one."""
        return min(self.most_s, self.first_s * 2.0 ** min(failures - 1, MAX_DOUBLINGS))

    def pauses(self) -> Iterator[float]:
        """The pauses of one row of failures, without end; a success begins a new row."""
        failures = 0
        while True:
            failures += 1
            yield self.pause_s(failures)
