"""Worker health: which workers are left out because they step far too slowly, not at all, or fail what they are sent.

Step times of one worker vary by less than a percent at a batch size (TetriServe, arXiv 2510.01565), so a factor of
`SLOW_FACTOR` over its own measurement is a fault and not noise. A worker is *ejected* when that has lasted for

    max(MIN_LATE_S, SLOW_FACTOR * time of one step of a full batch)

in whichever way it shows:

- *Silent*: nothing at all has come from it. It promises a message every so often (WatchLoad) whatever it does, so this
  holds for idle workers too, and the limit is `MISSED_MESSAGES` of those intervals if that is longer;
- *Stuck*: it talks, but a request on it waits for its next event;
- *SlowSteps*: steps come, one after the other too late, and what they took adds up.

A worker that fails requests in a row (`failure_streak`) is ejected too, as *Failing*, however quickly it steps.

It comes back on trial after a pause that doubles with each ejection: one request at a time until a step is on time, or
until an image is drawn if it was failing. Every further step on time forgets one ejection. Requests that an ejected
worker holds move where that is sooner.
It must never eject more than half of the pool for being slow: if most workers look slow, the measure is wrong, not the
workers. A failure is no measure: a pool of which every worker fails has nobody to serve, and says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from t2i_policy.failure_streak import Blame, FailureStreak

SLOW_FACTOR = 3.0
FIRST_PAUSE_S = 2.0
MAX_PAUSE_S = 60.0
MAX_DOUBLINGS = 16  # far past MAX_PAUSE_S; a worker that is ejected for weeks must not overflow
MIN_STEP_S = 0.01  # reports are judged as if they should take at least this: what comes over a network comes in clumps
#: Event loops on a busy machine run late by some 100 ms, a container that used up its CPU quota stands still for as
#: long, and so does a collection of garbage. Two of them in a row must not cost a worker its place; a second is still
#: small beside any SLO.
MIN_LATE_S = 1.0
MISSED_MESSAGES = 4.0  # of those promised; fewer could be one late event loop on either side
TRIAL_FRACTION = 0.5  # of the limit for slow steps, on trial
HOLD_S = 1.0  # a worker that is silent still stays out this much longer
MAX_EJECTED_FRACTION = 0.5
_NO_FAILURE = FailureStreak()


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
    STUCK = "Stuck"
    FAILING = "Failing"


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """What slow steps in a row took (seconds) and how many times too long the last one was, failures in a row, and the
    present ejection: until when (seconds), for the how-manieth time, why."""

    slow_s: float = 0.0
    pace: float = 1.0
    ejections: int = 0
    until_s: float = 0.0
    reason: EjectedReason = EjectedReason.NONE
    failures: FailureStreak = _NO_FAILURE

    def state(self, now_s: float) -> HealthState:
        """How the worker may be used now."""
        if self.reason is EjectedReason.NONE:
            return HealthState.GOOD
        return HealthState.EJECTED if now_s < self.until_s else HealthState.ON_TRIAL


def lateness_limit_s(expected_s: float) -> float:
    """How long a worker may be late with what should take `expected_s`."""
    return max(MIN_LATE_S, SLOW_FACTOR * expected_s)


def silence_limit_s(promised_s: float) -> float:
    """How long nothing at all may come from a worker that promised a message every `promised_s`."""
    return max(MIN_LATE_S, MISSED_MESSAGES * promised_s)


def after_report(health: WorkerHealth, took_s: float, expected_s: float, now_s: float) -> WorkerHealth:
    """Steps were reported: `took_s` since the report before, where the worker's own measurement says `expected_s`.

    Reports of one worker must not overlap: a batch reports each of its steps once for every request.
    """
    ejected = health.state(now_s) is HealthState.EJECTED
    usual_s = max(expected_s, MIN_STEP_S)
    if took_s <= SLOW_FACTOR * usual_s:
        if ejected or health.reason is EjectedReason.FAILING:
            return replace(health, slow_s=0.0)
        on_trial = health.reason is not EjectedReason.NONE
        ejections = health.ejections if on_trial else max(0, health.ejections - 1)
        return WorkerHealth(ejections=ejections, failures=health.failures)
    health = replace(health, slow_s=health.slow_s + took_s, pace=took_s / usual_s)
    share = 1.0 if health.reason is EjectedReason.NONE else TRIAL_FRACTION
    if ejected or health.slow_s < share * lateness_limit_s(expected_s):
        return health
    return _ejected(health, EjectedReason.SLOW_STEPS, now_s)


def after_silence(health: WorkerHealth, silent_s: float, limit_s: float, now_s: float) -> WorkerHealth:
    """Nothing came from it for `silent_s`. One that is out already stays out for as long as that goes on."""
    after = _after_wait(health, silent_s, limit_s, now_s, EjectedReason.SILENT)
    return after if after is health else replace(after, reason=EjectedReason.SILENT)


def after_wait(health: WorkerHealth, waited_s: float, limit_s: float, now_s: float) -> WorkerHealth:
    """A request on it waits for its next event since `waited_s`."""
    return _after_wait(health, waited_s, limit_s, now_s, EjectedReason.STUCK)


def _after_wait(
    health: WorkerHealth, waited_s: float, limit_s: float, now_s: float, reason: EjectedReason
) -> WorkerHealth:
    if waited_s < limit_s:
        return health
    if health.state(now_s) is HealthState.EJECTED:
        return replace(health, until_s=max(health.until_s, now_s + HOLD_S))
    return _ejected(health, reason, now_s)


def after_failure(health: WorkerHealth, prompt: int, blame: Blame, now_s: float) -> WorkerHealth:
    """A request failed on it, or more became known of one that did. `prompt`: its hash.

    One more on trial is enough, but for a prompt that is known to fail elsewhere too: it says nothing, and the next
    request is the trial. If what put it out turns out to be the requests' fault, it is back at once.
    """
    after = replace(health, failures=health.failures.failed(prompt, blame))
    if health.reason is EjectedReason.FAILING:
        if not after.failures.is_failing:
            return replace(after, reason=EjectedReason.NONE, ejections=max(0, health.ejections - 1), until_s=0.0)
        on_trial = health.state(now_s) is HealthState.ON_TRIAL
        tells = blame is Blame.OPEN and prompt not in health.failures.shared
        return _ejected(after, EjectedReason.FAILING, now_s) if on_trial and tells else after
    return _ejected(after, EjectedReason.FAILING, now_s) if after.failures.is_failing else after


def after_image(health: WorkerHealth) -> WorkerHealth:
    """It drew an image: whatever failed before, it does not fail everything."""
    if health.reason is EjectedReason.FAILING:
        health = replace(health, reason=EjectedReason.NONE, until_s=0.0)
    return replace(health, failures=_NO_FAILURE)


def _ejected(health: WorkerHealth, reason: EjectedReason, now_s: float) -> WorkerHealth:
    pause_s = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(health.ejections, MAX_DOUBLINGS))
    return WorkerHealth(0.0, health.pace, health.ejections + 1, now_s + pause_s, reason, health.failures)


def moves(health: WorkerHealth, steps_left: int, steps: int) -> bool:
    """True if a request with `steps_left` of its `steps` to do had better begin anew on another worker than stay on
    one that is ejected for this. On a stuck or failing worker, those that run wait for their own next event."""
    match health.reason:
        case EjectedReason.SILENT:
            return True
        case EjectedReason.STUCK | EjectedReason.FAILING:
            return steps_left == steps
        case EjectedReason.SLOW_STEPS:
            return health.pace * steps_left > steps
        case EjectedReason.NONE:
            return False


def _hope(name: str, health: WorkerHealth) -> tuple[bool, float, str]:
    return (health.reason is EjectedReason.SILENT, health.until_s, name)


def usable(healths: Mapping[str, WorkerHealth], now_s: float) -> dict[str, HealthState]:
    """The state of each worker that could serve, with some let back in where too many are ejected at once: those whose
    pause ends first, and only then those that are silent, whose pauses are short because they go on while they last.
    Those that fail stay out.
    """
    states = {name: health.state(now_s) for name, health in healths.items()}
    out = [name for name, state in states.items() if state is HealthState.EJECTED]
    excess = max(0, len(out) - int(MAX_EJECTED_FRACTION * len(states)))
    slow = [name for name in out if healths[name].reason is not EjectedReason.FAILING]
    back = sorted(slow, key=lambda name: _hope(name, healths[name]))[:excess]
    return states | dict.fromkeys(back, HealthState.ON_TRIAL)
