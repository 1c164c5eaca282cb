"""When a new plan is due: at once for a rise, late for a fall, never to and fro."""

import pytest

from t2i_policy.planning.replan import PlannedFor, ReplanReason, choose_replan, with_trend

WORKERS = {"gpu": 8}
PLANNED = PlannedFor({"near": 6.0, "far": 4.0}, WORKERS, at_s=100.0)
YOUNG_S, OLD_S = 110.0, 200.0


@pytest.mark.parametrize(
    ("near_rps", "far_rps", "now_s", "due", "reason"),
    [
        pytest.param(6.0, 4.0, OLD_S, False, ReplanReason.STEADY, id="as planned"),
        pytest.param(6.4, 4.4, OLD_S, False, ReplanReason.STEADY, id="within the margin"),
        pytest.param(7.0, 4.5, YOUNG_S, True, ReplanReason.DEMAND_ROSE, id="a rise is answered at once"),
        pytest.param(4.0, 3.0, YOUNG_S, False, ReplanReason.DWELLING, id="a fall waits"),
        pytest.param(4.0, 3.0, OLD_S, True, ReplanReason.DEMAND_FELL, id="a fall that lasts"),
        pytest.param(5.5, 3.5, OLD_S, False, ReplanReason.STEADY, id="a small fall is left"),
        pytest.param(3.0, 7.0, YOUNG_S, False, ReplanReason.DWELLING, id="another mix waits"),
        pytest.param(3.0, 7.0, OLD_S, True, ReplanReason.MIX_SHIFTED, id="another mix that lasts"),
        pytest.param(0.0, 0.0, OLD_S, True, ReplanReason.DEMAND_FELL, id="silence"),
    ],
)
def test_reason(near_rps: float, far_rps: float, now_s: float, due: bool, reason: ReplanReason) -> None:
    """One reason each."""
    found = choose_replan(PLANNED, {"near": near_rps, "far": far_rps}, WORKERS, now_s)
    assert (found.due, found.reason) == (due, reason)


def test_first_plan_and_changed_pool_are_due_at_once() -> None:
    """Neither waits for a dwell time."""
    assert choose_replan(None, {}, WORKERS, 0.0).reason is ReplanReason.NO_PLAN
    changed = choose_replan(PLANNED, PLANNED.rates_rps, {"gpu": 7}, YOUNG_S)
    assert (changed.due, changed.reason) == (True, ReplanReason.POOL_CHANGED)


def test_swinging_demand_does_not_swing_the_plan() -> None:
    """A rate that alternates by 20 % every second: one plan for the upper value, then none."""
    planned, plans = PLANNED, 0
    for second in range(600):
        rates = {"near": 6.0 if second % 2 else 7.2, "far": 4.0 if second % 2 else 4.8}
        if choose_replan(planned, rates, WORKERS, 100.0 + second).due:
            planned, plans = PlannedFor(rates, WORKERS, 100.0 + second), plans + 1
    assert plans == 1


def test_rising_trend_is_planned_ahead() -> None:
    """A rise goes on, a fall does not, and no time between measurements says nothing."""
    assert with_trend(12.0, 10.0, elapsed_s=10.0, ahead_s=5.0) == pytest.approx(13.0)
    assert with_trend(10.0, 12.0, elapsed_s=10.0, ahead_s=5.0) == 10.0
    assert with_trend(10.0, 5.0, elapsed_s=0.0, ahead_s=5.0) == 10.0
