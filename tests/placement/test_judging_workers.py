"""Worker health: slow and silent workers are left out quickly, come back on trial, never most of the pool at once."""

import pytest

from t2i_policy.outliers import (
    HOLD_S,
    MIN_LATE_S,
    EjectedReason,
    HealthState,
    WorkerHealth,
    after_report,
    after_silence,
    after_wait,
    lateness_limit_s,
    moves,
    silence_limit_s,
    usable,
)

STEP_S = 0.1
SLOW, SILENT, STUCK = EjectedReason.SLOW_STEPS, EjectedReason.SILENT, EjectedReason.STUCK


def slow_reports(health: WorkerHealth, count: int, now_s: float, took_s: float = 4 * STEP_S) -> WorkerHealth:
    for _ in range(count):
        health = after_report(health, took_s, STEP_S, now_s)
    return health


def test_slow_steps_add_up() -> None:
    """Two are a hiccup; once they took the whole limit it is a fault; one good step in between starts anew."""
    assert slow_reports(WorkerHealth(), 2, 0.0).state(0.0) is HealthState.GOOD
    out = slow_reports(WorkerHealth(), 3, 0.0)
    assert (out.state(0.0), out.reason) == (HealthState.EJECTED, SLOW)
    recovered = after_report(slow_reports(WorkerHealth(), 2, 0.0), STEP_S, STEP_S, 0.0)
    assert slow_reports(recovered, 2, 0.0).state(0.0) is HealthState.GOOD


@pytest.mark.parametrize("step_s", [0.01, 0.05, 0.1, 0.3, 1.0, 5.0])
def test_ten_times_slower_is_out_within_two_limits(step_s: float) -> None:
    """A step overdue or late ones adding up: twice the floor for small steps, the limit for large ones."""
    limit_s, health, past_s = lateness_limit_s(step_s), WorkerHealth(), 0.0
    while health.reason is EjectedReason.NONE:
        if 10 * step_s >= limit_s:
            past_s += limit_s
            health = after_wait(health, limit_s, limit_s, past_s)
        else:
            assert past_s < 60
            past_s += 10 * step_s
            health = after_report(health, 10 * step_s, step_s, past_s)
    assert past_s < (limit_s if 10 * step_s >= limit_s else 2 * MIN_LATE_S) + 1e-9


def test_steps_within_the_factor_are_normal() -> None:
    """Up to three times the measured step is contention, not a fault; tiny steps are not judged by network jitter."""
    assert slow_reports(WorkerHealth(), 20, 0.0, 2.9 * STEP_S) == WorkerHealth()
    assert after_report(WorkerHealth(), 0.029, 0.001, 0.0) == WorkerHealth()


def test_trial_ends_with_one_step_on_time() -> None:
    """After the pause one request may try; on time = good again, slow = out again for twice as long.
    One late report may be the network's, even then."""
    once = slow_reports(slow_reports(WorkerHealth(), 3, 0.0), 1, 10.0)
    assert once.state(10.0) is HealthState.ON_TRIAL
    out = slow_reports(WorkerHealth(), 3, 0.0)
    assert out.state(out.until_s) is HealthState.ON_TRIAL
    assert after_report(out, STEP_S, STEP_S, out.until_s).state(out.until_s) is HealthState.GOOD
    again = slow_reports(out, 2, out.until_s)
    assert again.state(out.until_s) is HealthState.EJECTED
    assert again.until_s - out.until_s == 2 * out.until_s


def test_leftovers_of_an_ejected_worker_do_not_prolong_its_pause() -> None:
    """Requests that stay on it report slow steps on and on: that is the same fault, not another one."""
    out = slow_reports(WorkerHealth(), 3, 0.0)
    assert slow_reports(out, 50, 1.0).until_s == out.until_s


def test_silence_ejects() -> None:
    """A worker that misses four of the messages it promised is out, and is that for as long as it stays silent."""
    assert silence_limit_s(0.25) == silence_limit_s(0.1) == MIN_LATE_S
    assert silence_limit_s(1.0) == 4.0
    assert after_silence(WorkerHealth(), 0.9, 1.0, 5.0) == WorkerHealth()
    out = after_silence(WorkerHealth(), 1.1, 1.0, 5.0)
    assert (out.reason, out.ejections) == (SILENT, 1)
    for now_s in (6.0, 6.9, 7.8, 8.7, 9.6):
        out = after_silence(out, now_s - 3.9, 1.0, now_s)
        assert out.state(now_s) is HealthState.EJECTED
    assert out.ejections == 1
    assert out.state(9.6 + HOLD_S) is HealthState.ON_TRIAL


def test_overdue_event_ejects() -> None:
    """Three steps of a full batch, and never less than the floor: it talks, but does not get on."""
    assert lateness_limit_s(STEP_S) == MIN_LATE_S
    assert lateness_limit_s(1.0) == 3.0
    assert after_wait(WorkerHealth(), 2.9, 3.0, 5.0) == WorkerHealth()
    assert after_wait(WorkerHealth(), 3.0, 3.0, 5.0).reason is STUCK


MOVING = {
    "a silent worker's requests all move": (WorkerHealth(reason=SILENT, pace=1.0), 1, 10, True),
    "even those whose steps are done": (WorkerHealth(reason=SILENT), 0, 10, True),
    "ten times slower, a fifth left: sooner elsewhere": (WorkerHealth(reason=SLOW, pace=10.0), 2, 10, True),
    "ten times slower, all but done: stays": (WorkerHealth(reason=SLOW, pace=10.0), 1, 10, False),
    "four times slower, a fifth left: stays": (WorkerHealth(reason=SLOW, pace=4.0), 2, 10, False),
    "slow, and only the image is to be encoded": (WorkerHealth(reason=SLOW, pace=10.0), 0, 10, False),
    "behind a stuck request nothing has begun": (WorkerHealth(reason=STUCK), 10, 10, True),
    "a stuck worker's running requests judge for themselves": (WorkerHealth(reason=STUCK), 9, 10, False),
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
