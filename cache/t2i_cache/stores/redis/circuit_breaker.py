"""When a store that fails is left alone: decided from the failures so far and the clock.

A server that hangs would cost every request its whole limit. After `PATIENCE` failures in a row calls fail at once for
a rest. The rest doubles each time that a call after it fails too; one success ends it. It must never rest for longer
than `MAX_REST_S`, so that a store that is back is soon used again.
"""

from dataclasses import dataclass

from t2i_policy.backoff import Backoff

PATIENCE = 3
MAX_REST_S = 2.0
RESTS = Backoff(first_s=0.25, most_s=MAX_REST_S)


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """Failures in a row and the instant until which nobody calls, in seconds of one clock."""

    failures: int = 0
    until_s: float = 0.0

    def rests(self, now_s: float) -> bool:
        return now_s < self.until_s

    def after_failure(self, now_s: float) -> "CircuitBreaker":
        failures = self.failures + 1
        if failures < PATIENCE:
            return CircuitBreaker(failures)
        return CircuitBreaker(failures, now_s + RESTS.pause_s(failures - PATIENCE + 1))

    def after_success(self) -> "CircuitBreaker":
        return self if not self.failures else CircuitBreaker()
