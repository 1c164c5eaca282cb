"""When a store that fails is left alone: decided from the failures so far and the clock.

A server that hangs would cost every request its whole limit. After `PATIENCE` failures in a row calls fail at once for
a rest, which doubles while a call after it fails too; one success ends it. It must never rest for longer than
`MAX_REST_S`, so that a store that is back is soon used again.
"""

from dataclasses import dataclass

PATIENCE = 3
FIRST_REST_S = 0.25
MAX_REST_S = 2.0


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """Failures in a row and the instant until which nobody calls, in seconds of one clock."""

    failures: int = 0
    until_s: float = 0.0

    def rests(self, now_s: float) -> bool:
        """Whether to fail at once."""
        return now_s < self.until_s

    def after_failure(self, now_s: float) -> "CircuitBreaker":
        """A call failed or was late."""
        failures = self.failures + 1
        if failures < PATIENCE:
            return CircuitBreaker(failures)
        rest_s = min(MAX_REST_S, FIRST_REST_S * 2.0 ** min(16, failures - PATIENCE))
        return CircuitBreaker(failures, now_s + rest_s)

    def after_success(self) -> "CircuitBreaker":
        """A call was answered."""
        return self if not self.failures else CircuitBreaker()
