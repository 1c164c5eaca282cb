"""Worker health: slow and silent workers are left out quickly, come back on trial, never most of the pool at once."""

from dataclasses import replace

import pytest

from t2i_policy.outliers import (
    HOLD_S,
    MIN_LATE_S,
    EjectedReason,
    HealthState,
    WorkerHealth,
    WorkReport,
    judge,
    lateness_limit_s,
    moves,
    silence_limit_s,
    usable,
)

STEP_S = 0.1
SLOW, SILENT, STUCK = EjectedReason.SLOW_STEPS, EjectedReason.SILENT, EjectedReason.STUCK


def after_steps(health: WorkerHealth, took_s: float, now_s: float, step_s: float = STEP_S) -> WorkerHealth:
    """One step ended that took so long."""
    report = WorkReport(steps_took_s=took_s, steps_usual_s=step_s, step_s=step_s, heard_s=now_s)
    return judge(health, WorkReport(), report, now_s)


def slow_steps(health: WorkerHealth, count: int, now_s: float, took_s: float = 4 * STEP_S) -> WorkerHealth:
    for _ in range(count):
        health = after_steps(health, took_s, now_s)
    return health


def silent(health: WorkerHealth, silent_s: float, now_s: float, promised_s: float = 0.25) -> WorkerHealth:
    report = WorkReport(promised_s=promised_s, heard_s=now_s - silent_s)
    return judge(health, report, report, now_s)


def test_slow_steps_add_up() -> None:
    """Two are a hiccup; once they took the whole limit it is a fault; one good step in between starts anew."""
    assert slow_steps(WorkerHealth(), 2, 0.0).state(0.0) is HealthState.GOOD
    out = slow_steps(WorkerHealth(), 3, 0.0)
    assert (out.state(0.0), out.reason) == (HealthState.EJECTED, SLOW)
    recovered = after_steps(slow_steps(WorkerHealth(), 2, 0.0), STEP_S, 0.0)
    assert slow_steps(recovered, 2, 0.0).state(0.0) is HealthState.GOOD


def test_steps_of_one_report_are_judged_together() -> None:
    """Two slow steps and eight on time are a hiccup: only what all of them took counts."""
    before = WorkReport(10.0, 8.0, step_s=STEP_S)
    report = replace(before, steps_took_s=10.0 + 2 * 0.75 + 8 * STEP_S, steps_usual_s=8.0 + 10 * STEP_S)
    assert judge(WorkerHealth(), before, report, 0.0) == WorkerHealth()


@pytest.mark.parametrize("step_s", [0.01, 0.05, 0.1, 0.3, 1.0, 5.0])
def test_ten_times_slower_is_out_within_two_limits(step_s: float) -> None:
    """A step overdue or late ones adding up: twice the floor for small steps, the limit for large ones."""
    limit_s, health, past_s = lateness_limit_s(step_s), WorkerHealth(), 0.0
    while health.reason is EjectedReason.NONE:
        assert past_s < 60
        past_s += min(limit_s, 10 * step_s)
        if 10 * step_s >= limit_s:
            report = WorkReport(step_age_s=limit_s, step_s=step_s, heard_s=past_s)
            health = judge(health, report, report, past_s)
        else:
            health = after_steps(health, 10 * step_s, past_s, step_s)
    assert past_s < (limit_s if 10 * step_s >= limit_s else 2 * MIN_LATE_S) + 1e-9


def test_steps_within_the_factor_are_normal() -> None:
    """Up to three times the measured step is contention, not a fault."""
    assert slow_steps(WorkerHealth(), 20, 0.0, 2.9 * STEP_S) == WorkerHealth()


def test_report_without_a_step_says_nothing() -> None:
    """An idle worker, one of an older version, one that began to count anew."""
    slow = slow_steps(WorkerHealth(), 2, 0.0)
    for before in (WorkReport(), WorkReport(steps_took_s=50.0, steps_usual_s=10.0)):
        assert judge(slow, before, WorkReport(), 0.0) == slow


def test_trial_ends_with_one_step_on_time() -> None:
    """After the pause one request may try; on time = good again, slow = out again for twice as long.
    One late step may be a hiccup, even then."""
    once = slow_steps(slow_steps(WorkerHealth(), 3, 0.0), 1, 10.0)
    assert once.state(10.0) is HealthState.ON_TRIAL
    out = slow_steps(WorkerHealth(), 3, 0.0)
    assert out.state(out.until_s) is HealthState.ON_TRIAL
    assert after_steps(out, STEP_S, out.until_s).state(out.until_s) is HealthState.GOOD
    again = slow_steps(out, 2, out.until_s)
    assert again.state(out.until_s) is HealthState.EJECTED
    assert again.until_s - out.until_s == 2 * out.until_s


def test_leftovers_of_an_ejected_worker_do_not_prolong_its_pause() -> None:
    """Requests that stay on it step slowly on and on: that is the same fault, not another one."""
    out = slow_steps(WorkerHealth(), 3, 0.0)
    assert slow_steps(out, 50, 1.0).until_s == out.until_s


def test_silence_ejects() -> None:
    """A worker that misses four of the messages it promised is out, and is that for as long as it stays silent."""
    assert silence_limit_s(0.25) == silence_limit_s(0.1) == MIN_LATE_S
    assert silence_limit_s(1.0) == 4.0
    assert silent(WorkerHealth(), 0.9, 5.0) == silent(WorkerHealth(), 3.9, 5.0, 1.0) == WorkerHealth()
    out = silent(WorkerHealth(), 1.1, 5.0)
    assert (out.reason, out.ejections) == (SILENT, 1)
    for now_s in (6.0, 6.9, 7.8, 8.7, 9.6):
        out = silent(out, now_s - 3.9, now_s)
        assert out.state(now_s) is HealthState.EJECTED
    assert out.ejections == 1
    assert out.state(9.6 + HOLD_S) is HealthState.ON_TRIAL


STUCK_REPORTS = {
    "a step takes less than three steps of a full batch": (WorkReport(step_age_s=2.9, step_s=1.0), False),
    "three of them": (WorkReport(step_age_s=3.0, step_s=1.0), True),
    "a short step, and never less than the floor": (WorkReport(step_age_s=0.9, step_s=0.01), False),
    "a short step, and the floor": (WorkReport(step_age_s=MIN_LATE_S, step_s=0.01), True),
    "an image takes less than three times those of a batch": (WorkReport(encode_age_s=5.9, encodes_s=2.0), False),
    "and three times those": (WorkReport(encode_age_s=6.0, encodes_s=2.0, step_s=0.01), True),
}


@pytest.mark.parametrize(("report", "stuck"), STUCK_REPORTS.values(), ids=STUCK_REPORTS.keys())
def test_stuck_worker_is_ejected(report: WorkReport, stuck: bool) -> None:
    """It talks, but does not get on."""
    health = judge(WorkerHealth(), report, report, 0.0)
    assert health.reason is (STUCK if stuck else EjectedReason.NONE)


def test_worker_is_stuck_until_it_steps() -> None:
    """However often it says so, that is one ejection."""
    health, report = WorkerHealth(), WorkReport(step_age_s=5.0, step_s=1.0)
    for look in range(80):
        now_s = look / 4
        report = replace(report, heard_s=now_s)
        health = judge(health, report, report, now_s)
        assert health.state(now_s) is HealthState.EJECTED
    assert health.ejections == 1


MOVING = {
    "a silent worker's requests all move": (WorkerHealth(reason=SILENT, pace=1.0), 1, 10, True),
    "even those whose steps are done": (WorkerHealth(reason=SILENT), 0, 10, True),
    "ten times slower, a fifth left: sooner elsewhere": (WorkerHealth(reason=SLOW, pace=10.0), 2, 10, True),
    "ten times slower, all but done: stays": (WorkerHealth(reason=SLOW, pace=10.0), 1, 10, False),
    "four times slower, a fifth left: stays": (WorkerHealth(reason=SLOW, pace=4.0), 2, 10, False),
    "slow, and only the image is to be encoded": (WorkerHealth(reason=SLOW, pace=10.0), 0, 10, False),
    "a stuck worker's requests all move": (WorkerHealth(reason=STUCK), 9, 10, True),
    "also one whose image does not come": (WorkerHealth(reason=STUCK), 0, 10, True),
}


@pytest.mark.parametrize(("health", "left", "steps", "moved"), MOVING.values(), ids=MOVING.keys())
def test_requests_move_where_that_is_sooner(health: WorkerHealth, left: int, steps: int, moved: bool) -> None:
    """Beginning anew costs all steps once; staying costs those that are left, each so many times."""
    assert moves(health, left, steps) == moved


def test_at_most_half_of_the_pool_is_out() -> None:
    """If most workers look slow the measure is wrong: those whose pause ends first are let back."""
    healths = {f"w{n}": WorkerHealth(ejections=1, until_s=10.0 + n, reason=SLOW) for n in range(4)}
    assert usable(healths, 5.0) == {
        "w0": HealthState.ON_TRIAL,
        "w1": HealthState.ON_TRIAL,
        "w2": HealthState.EJECTED,
        "w3": HealthState.EJECTED,
    }
    assert usable({"only": healths["w0"]}, 5.0) == {"only": HealthState.ON_TRIAL}


def test_slow_worker_is_let_back_before_a_silent_one() -> None:
    """A frozen worker's pause is short, as it goes on while the worker is silent; the slow one still makes images."""
    frozen = WorkerHealth(ejections=1, until_s=6.0, reason=SILENT)
    slow = WorkerHealth(ejections=2, until_s=60.0, reason=SLOW)
    assert usable({"frozen": frozen, "slow": slow}, 5.0) == {
        "frozen": HealthState.EJECTED,
        "slow": HealthState.ON_TRIAL,
    }
