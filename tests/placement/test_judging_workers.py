"""Worker health: slow and silent workers are left out quickly, come back on trial, never most of the pool at once."""

from t2i_policy.health import EjectedReason, HealthState, WorkerHealth, after_silence, after_step, usable

STEP_S = 0.1


def slow_steps(health: WorkerHealth, count: int, now_s: float) -> WorkerHealth:
    for _ in range(count):
        health = after_step(health, 10 * STEP_S, STEP_S, now_s)
    return health


def test_three_slow_steps_in_a_row_eject() -> None:
    """Two are a hiccup, three are a fault; one good step in between starts the count again."""
    assert slow_steps(WorkerHealth(), 2, 0.0).state(0.0) is HealthState.GOOD
    out = slow_steps(WorkerHealth(), 3, 0.0)
    assert (out.state(0.0), out.reason) == (HealthState.EJECTED, EjectedReason.SLOW_STEPS)
    recovered = after_step(slow_steps(WorkerHealth(), 2, 0.0), STEP_S, STEP_S, 0.0)
    assert slow_steps(recovered, 2, 0.0).state(0.0) is HealthState.GOOD


def test_steps_within_the_factor_are_normal() -> None:
    """Up to three times the measured step is contention, not a fault; tiny steps are not judged by network jitter."""
    assert after_step(WorkerHealth(), 2.9 * STEP_S, STEP_S, 0.0) == WorkerHealth()
    assert after_step(WorkerHealth(), 0.12, 0.001, 0.0) == WorkerHealth()


def test_trial_ends_with_one_step_on_time() -> None:
    """After the pause one request may try; on time = good again, slow = out again for twice as long."""
    out = slow_steps(WorkerHealth(), 3, 0.0)
    assert out.state(out.until_s) is HealthState.ON_TRIAL
    assert after_step(out, STEP_S, STEP_S, out.until_s).state(out.until_s) is HealthState.GOOD
    again = after_step(out, 10 * STEP_S, STEP_S, out.until_s)
    assert again.state(out.until_s) is HealthState.EJECTED
    assert again.until_s - out.until_s == 2 * out.until_s


def test_silence_ejects() -> None:
    """A frozen worker is out once it owes for longer than any step takes; a short silence is not judged."""
    assert after_silence(WorkerHealth(), 0.9, STEP_S, 5.0) == WorkerHealth()
    assert after_silence(WorkerHealth(), 1.1, STEP_S, 5.0).reason is EjectedReason.SILENT
    assert after_silence(WorkerHealth(), 2.9, 1.0, 5.0) == WorkerHealth()


def test_at_most_half_of_the_pool_is_out() -> None:
    """If most workers look slow the measure is wrong: those whose pause ends first are let back."""
    healths = {f"w{n}": WorkerHealth(0, 1, 10.0 + n, EjectedReason.SLOW_STEPS) for n in range(4)}
    assert usable(healths, 5.0) == {
        "w0": HealthState.ON_TRIAL,
        "w1": HealthState.ON_TRIAL,
        "w2": HealthState.EJECTED,
        "w3": HealthState.EJECTED,
    }
    assert usable({"only": healths["w0"]}, 5.0) == {"only": HealthState.ON_TRIAL}
