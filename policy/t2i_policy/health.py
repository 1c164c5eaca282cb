"""Worker health: which workers are left out because they step far slower than they measured themselves, or not at all.

Step times of one worker vary by less than a percent at a batch size (TetriServe, arXiv 2510.01565), so a factor of
`SLOW_FACTOR` over its own warm-up measurement is a fault and not noise. A worker is *ejected*

- after `STRIKES` slow steps in a row, or
- when nothing has come from it for `SLOW_FACTOR` step times of its batch while it owes steps (frozen, cut off);

and comes back on trial after a pause that doubles with each ejection: one request at a time until a step is on time.
Every further step on time forgets one ejection.
It must never eject more than half of the pool: if most workers look slow, the measure is wrong, not the workers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

SLOW_FACTOR = 3.0
STRIKES = 3
FIRST_PAUSE_S = 2.0
MAX_PAUSE_S = 60.0
MAX_DOUBLINGS = 16  # far past MAX_PAUSE_S; a worker that is ejected for weeks must not overflow
MIN_STEP_S = 0.05  # steps are judged as if they took at least this: what comes over a network comes in clumps
MIN_SILENCE_S = 1.0  # below this, silence is the network's and the event loop's jitter
MAX_EJECTED_FRACTION = 0.5


class HealthState(StrEnum):
    """How a worker may be used."""

    GOOD = "Good"
    EJECTED = "Ejected"  # takes nothing
    ON_TRIAL = "OnTrial"  # takes one request at a time


class EjectedReason(StrEnum):
    """Why."""

    NONE = ""
    SLOW_STEPS = "SlowSteps"
    SILENT = "Silent"


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """Slow steps in a row, and the present ejection: until when (seconds), for the how-manieth time, why."""

    strikes: int = 0
    ejections: int = 0
    until_s: float = 0.0
    reason: EjectedReason = EjectedReason.NONE

    def state(self, now_s: float) -> HealthState:
        """How the worker may be used now."""
        if self.reason is EjectedReason.NONE:
            return HealthState.GOOD
        return HealthState.EJECTED if now_s < self.until_s else HealthState.ON_TRIAL


def after_step(health: WorkerHealth, took_s: float, expected_s: float, now_s: float) -> WorkerHealth:
    """A step was reported: `took_s` seconds where the worker's own measurement says `expected_s`."""
    if took_s <= SLOW_FACTOR * max(expected_s, MIN_STEP_S):
        if health.state(now_s) is HealthState.EJECTED:
            return replace(health, strikes=0)
        on_trial = health.reason is not EjectedReason.NONE
        return WorkerHealth(ejections=health.ejections if on_trial else max(0, health.ejections - 1))
    strikes = health.strikes + 1
    if strikes < STRIKES and health.reason is EjectedReason.NONE:
        return replace(health, strikes=strikes)
    return _ejected(health, EjectedReason.SLOW_STEPS, now_s)


def after_silence(health: WorkerHealth, silent_s: float, expected_s: float, now_s: float) -> WorkerHealth:
    """Nothing came for `silent_s` from a worker that owes steps, each expected to take `expected_s` at its batch."""
    if silent_s <= max(MIN_SILENCE_S, SLOW_FACTOR * expected_s) or health.state(now_s) is HealthState.EJECTED:
        return health
    return _ejected(health, EjectedReason.SILENT, now_s)


def _ejected(health: WorkerHealth, reason: EjectedReason, now_s: float) -> WorkerHealth:
    pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(health.ejections, MAX_DOUBLINGS))
    return WorkerHealth(0, health.ejections + 1, now_s + pause_s, reason)


def usable(healths: Mapping[str, WorkerHealth], now_s: float) -> dict[str, HealthState]:
    """The state of each worker, with the longest-suffering let back in where too many are ejected at once."""
    states = {name: health.state(now_s) for name, health in healths.items()}
    out = sorted((n for n, s in states.items() if s is HealthState.EJECTED), key=lambda n: (healths[n].until_s, n))
    excess = len(out) - int(MAX_EJECTED_FRACTION * len(states))
    return states | dict.fromkeys(out[: max(0, excess)], HealthState.ON_TRIAL)
