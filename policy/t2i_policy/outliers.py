"""Worker health: which workers are left out because they step far too slowly, not at all, or fail what they are sent.

A worker tells its load several times a second. That alone is judged (`judge`), by two reports after each other:

    Silent     no report came for MISSED_MESSAGES of the intervals that it promised, and for MIN_LATE_S
    Stuck      one step, text or image is in work for longer than the limit below
    SlowSteps  steps in a row took SLOW_FACTOR times what the worker's own measurement says, and the limit in all

    limit = max(MIN_LATE_S, SLOW_FACTOR * time of one step, or of all texts and images, of a full batch)

What steps took is counted by the worker's own clock. So neither a network in between nor a reader that stood still
makes a worker look slow. Step times of one worker vary by less than a percent at a batch size (TetriServe, arXiv
2510.01565). So a factor of SLOW_FACTOR is a fault and not noise.

A worker that fails requests in a row (`failure_streak`) is ejected too, as *Failing*, however quickly it steps.

It comes back on trial after a pause that doubles with each ejection: one request at a time until steps are on time, or
until an image is drawn. Each further report of steps on time forgets one ejection. Requests that an ejected worker
holds move where that is sooner (`moves`).
It must never eject more than half of the pool for being slow: if most workers look slow, the measure is wrong, not the
workers. A failure is no measure: a pool of which every worker fails has nobody to serve, and says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from t2i_policy.backoff import Backoff
from t2i_policy.failure_streak import Blame, FailureStreak

SLOW_FACTOR = 3.0
FIRST_PAUSE_S = 2.0
MAX_PAUSE_S = 60.0
PAUSES = Backoff(FIRST_PAUSE_S, MAX_PAUSE_S)
#: Event loops on a busy machine run late by some 100 ms, a container that used up its CPU quota stands still for as
#: long, and so does a collection of garbage. Two of them in a row must not cost a worker its place; a second is still
#: small beside any SLO.
MIN_LATE_S = 1.0
MISSED_MESSAGES = 4.0  # of those promised; fewer could be one late event loop on either side
TRIAL_FRACTION = 0.5  # of the limit for slow steps, on trial
HOLD_S = 1.0  # a worker that is silent or stuck still stays out this much longer
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
class WorkReport:
    """What a worker last said of its work. A worker of an older version leaves out the first four.

    `heard_s` is by the reader's clock, all else by the worker's own.
    """

    steps_took_s: float = 0.0  # all steps since its start
    steps_usual_s: float = 0.0  # what these should have taken
    step_age_s: float = 0.0  # since the present step began; 0 between steps
    encode_age_s: float = 0.0  # since the oldest text or image in work began; 0 without any
    step_s: float = 0.0  # a step of a full batch
    encodes_s: float = 0.0  # all texts and images of a full batch
    promised_s: float = 1.0  # the next report comes within this
    heard_s: float = 0.0  # when this one came

    @property
    def is_stuck(self) -> bool:
        """True if something is in work for far too long."""
        late_step = self.step_age_s >= lateness_limit_s(self.step_s)
        return late_step or self.encode_age_s >= lateness_limit_s(self.encodes_s)


@dataclass(frozen=True, slots=True)
class WorkerHealth:
    """What is held against a worker, and its present ejection."""

    slow_s: float = 0.0  # what slow steps in a row took
    pace: float = 1.0  # how many times longer than usual the last of them took
    ejections: int = 0  # the pause doubles with each; steps on time forget one
    until_s: float = 0.0  # the end of the pause; on trial from then on
    reason: EjectedReason = EjectedReason.NONE  # NONE: it is not ejected
    failures: FailureStreak = _NO_FAILURE

    def state(self, now_s: float) -> HealthState:
        """How the worker may be used now."""
        if self.reason is EjectedReason.NONE:
            return HealthState.GOOD
        return HealthState.EJECTED if now_s < self.until_s else HealthState.ON_TRIAL


def lateness_limit_s(expected_s: float) -> float:
    """How long what should take `expected_s` may take."""
    return max(MIN_LATE_S, SLOW_FACTOR * expected_s)


def silence_limit_s(promised_s: float) -> float:
    """How long nothing may come from a worker that promised a report every `promised_s`."""
    return max(MIN_LATE_S, MISSED_MESSAGES * promised_s)


def judge(health: WorkerHealth, before: WorkReport, report: WorkReport, now_s: float) -> WorkerHealth:
    """The health after a worker's last report, which came after the report `before`, or did not come."""
    if now_s - report.heard_s >= silence_limit_s(report.promised_s):
        return _keep_out(health, EjectedReason.SILENT, now_s)
    health = _after_steps(health, before, report, now_s)
    return _keep_out(health, EjectedReason.STUCK, now_s) if report.is_stuck else health


def _after_steps(health: WorkerHealth, before: WorkReport, report: WorkReport, now_s: float) -> WorkerHealth:
    took_s = report.steps_took_s - before.steps_took_s
    usual_s = report.steps_usual_s - before.steps_usual_s
    if usual_s <= 0:
        return health  # no step ended
    if took_s <= SLOW_FACTOR * usual_s:
        return _on_time(health, now_s)
    health = replace(health, slow_s=health.slow_s + took_s, pace=took_s / usual_s)
    share = 1.0 if health.reason is EjectedReason.NONE else TRIAL_FRACTION
    ejected = health.state(now_s) is HealthState.EJECTED
    if ejected or health.slow_s < share * lateness_limit_s(report.step_s):
        return health
    return _ejected(health, EjectedReason.SLOW_STEPS, now_s)


def _on_time(health: WorkerHealth, now_s: float) -> WorkerHealth:
    """Its steps do: it is not slow. One that fails what it is sent must draw an image first."""
    if health.state(now_s) is HealthState.EJECTED or health.reason is EjectedReason.FAILING:
        return replace(health, slow_s=0.0)
    on_trial = health.reason is not EjectedReason.NONE
    ejections = health.ejections if on_trial else max(0, health.ejections - 1)
    return WorkerHealth(ejections=ejections, failures=health.failures)


def _keep_out(health: WorkerHealth, reason: EjectedReason, now_s: float) -> WorkerHealth:
    """Eject it. One that is out already stays out for as long as this goes on."""
    if health.state(now_s) is HealthState.EJECTED:
        return replace(health, until_s=max(health.until_s, now_s + HOLD_S), reason=reason)
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


def after_image(health: WorkerHealth, now_s: float) -> WorkerHealth:
    """It drew an image: whatever failed before, it does not fail everything, and on trial it has proved itself."""
    proved = health.state(now_s) is HealthState.ON_TRIAL and health.reason is not EjectedReason.SLOW_STEPS
    if proved or health.reason is EjectedReason.FAILING:
        health = replace(health, reason=EjectedReason.NONE, until_s=0.0)
    return health if health.failures == _NO_FAILURE else replace(health, failures=_NO_FAILURE)


def _ejected(health: WorkerHealth, reason: EjectedReason, now_s: float) -> WorkerHealth:
    pause_s = PAUSES.pause_s(health.ejections + 1)
    return WorkerHealth(0.0, health.pace, health.ejections + 1, now_s + pause_s, reason, health.failures)


def moves(health: WorkerHealth, steps_left: int, steps: int) -> bool:
    """True if a request had better begin anew on another worker than stay on one that is ejected for this. It has
    `steps_left` of its `steps` still to do."""
    match health.reason:
        case EjectedReason.SILENT | EjectedReason.STUCK:
            return True
        case EjectedReason.FAILING:
            return steps_left == steps  # those that run may end well
        case EjectedReason.SLOW_STEPS:
            return health.pace * steps_left > steps
        case EjectedReason.NONE:
            return False


def _order_of_return(name: str, health: WorkerHealth) -> tuple[bool, float, str]:
    return (health.reason is EjectedReason.SILENT, health.until_s, name)


def usable(healths: Mapping[str, WorkerHealth], now_s: float) -> dict[str, HealthState]:
    """The state of each worker that could serve, with some let back in where too many are ejected at once.

    Those whose pause ends first come back first, and those that are silent only after them. The pauses of silent ones
    are short because they go on while the silence lasts. Those that fail stay out.
    """
    states = {name: health.state(now_s) for name, health in healths.items()}
    out = [name for name, state in states.items() if state is HealthState.EJECTED]
    excess = max(0, len(out) - int(MAX_EJECTED_FRACTION * len(states)))
    slow = [name for name in out if healths[name].reason is not EjectedReason.FAILING]
    back = sorted(slow, key=lambda name: _order_of_return(name, healths[name]))[:excess]
    return states | dict.fromkeys(back, HealthState.ON_TRIAL)
