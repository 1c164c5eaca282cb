"""Worker readiness: whether a worker takes requests, as it judges itself by its denoise thread and by its results.

Gateways judge workers from outside (`health`); this is what only the worker itself can know:

- *DeviceLost*, *LoopEnded*: the device answers every call with an error, or the denoise thread is gone. Nothing in this
  process can mend that, so the process ends and is started anew;
- *StepStuck*: one step takes longer than `max(STUCK_MIN_S, STUCK_STEPS * time of one step)`;
- *RequestsFail*: `MAX_FAILURES_IN_A_ROW` different requests failed and none succeeded between. The same request sent
  again counts once: a request that no worker can draw says nothing about this one. So nobody's odd requests keep a good
  worker out, the worker then draws an ordinary request of its own. If that succeeds it is back at once, with nothing
  held against it; if not it tries again after 1, 2, 4 ... 30 seconds.

- *LoadingModel*: it ends what it has, then loads another model of the pool, as the operator ordered.

A request that was refused, cancelled or out of time is neither a failure nor a success.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from t2i_policy.backoff import Backoff

MAX_FAILURES_IN_A_ROW = 3
STUCK_MIN_S = 120.0
STUCK_STEPS = 30.0
BACKOFF = Backoff(first_s=1.0, most_s=30.0)


class ReadyReason(StrEnum):
    """Why a worker takes requests, or none."""

    READY = "Ready"
    DRAINING = "Draining"
    REQUESTS_FAIL = "RequestsFail"
    STEP_STUCK = "StepStuck"
    LOOP_ENDED = "LoopEnded"
    DEVICE_LOST = "DeviceLost"
    LOADING_MODEL = "LoadingModel"


#: Only a new process helps.
_LOST = (ReadyReason.LOOP_ENDED, ReadyReason.DEVICE_LOST)


@dataclass(frozen=True, slots=True)
class FailuresInARow:
    """Ids of the different requests that failed since one last succeeded."""

    request_ids: frozenset[str] = field(default_factory=frozenset)

    def after_failure(self, request_id: str) -> "FailuresInARow":
        """One more; the same request again changes nothing."""
        return FailuresInARow(self.request_ids | {request_id})

    @property
    def count(self) -> int:
        """How many."""
        return len(self.request_ids)

    @property
    def too_many(self) -> bool:
        """True once the worker must test itself."""
        return self.count >= MAX_FAILURES_IN_A_ROW


@dataclass(frozen=True, slots=True)
class EngineSigns:
    """What an engine sees of itself. `lost`: that its device or its loop is gone; times in seconds."""

    draining: bool = False
    loading: bool = False
    lost: ReadyReason | None = None
    failures: FailuresInARow = FailuresInARow()
    step_age_s: float = 0.0
    step_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """The verdict and its reason."""

    reason: ReadyReason

    @property
    def ready(self) -> bool:
        """True if the worker takes requests."""
        return self.reason is ReadyReason.READY

    @property
    def lost(self) -> bool:
        """True if the process must end."""
        return self.reason in _LOST

    @property
    def alive(self) -> bool:
        """False if only a new process helps."""
        return not self.lost and self.reason is not ReadyReason.STEP_STUCK


def judge_readiness(signs: EngineSigns) -> Readiness:
    """The gravest reason that holds."""
    if signs.lost is not None:
        return Readiness(signs.lost)
    if signs.step_age_s > max(STUCK_MIN_S, STUCK_STEPS * signs.step_s):
        return Readiness(ReadyReason.STEP_STUCK)
    if signs.draining:
        return Readiness(ReadyReason.DRAINING)
    if signs.loading:
        return Readiness(ReadyReason.LOADING_MODEL)
    if signs.failures.too_many:
        return Readiness(ReadyReason.REQUESTS_FAIL)
    return Readiness(ReadyReason.READY)


def pause_before_test_s(failed_tests: int) -> float:
    """Seconds to wait before the worker tests itself again, after so many tests in a row that failed."""
    return BACKOFF.pause_s(failed_tests) if failed_tests else 0.0
