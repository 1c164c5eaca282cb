"""When a new plan is due: at once for another pool, once in a dwell time for another demand."""

from dataclasses import replace

import pytest

from t2i_policy.planning.classes import ClassTable
from t2i_policy.planning.plan import NO_PLAN, GroupCapacity, Plan
from t2i_policy.planning.replan import PlanInputs, ReplanReason, why_replan

WORKERS = {"gpu": 8}
GROUPS = [GroupCapacity("gpu", 8, {})]
PLANNED = Plan(rates_rps={"near": 6.0, "far": 4.0}, group_workers=WORKERS, made_s=100.0, revision=1)
YOUNG_S, OLD_S = 110.0, 200.0


def asking(near_rps: float, far_rps: float) -> PlanInputs:
    """Demand of two classes on the same workers."""
    return PlanInputs(ClassTable((), {}), GROUPS, {"near": near_rps, "far": far_rps})


@pytest.mark.parametrize(
    ("near_rps", "far_rps", "now_s", "due"),
    [
        pytest.param(6.0, 4.0, OLD_S, False, id="as planned"),
        pytest.param(7.0, 5.0, OLD_S, False, id="within the margin"),
        pytest.param(9.0, 6.0, YOUNG_S, False, id="a rise waits for the plan to have dwelt: prices answer it"),
        pytest.param(9.0, 6.0, OLD_S, True, id="a rise"),
        pytest.param(4.0, 3.0, OLD_S, True, id="a fall"),
        pytest.param(4.0, 6.0, OLD_S, True, id="another mix"),
        pytest.param(0.0, 0.0, OLD_S, True, id="silence"),
    ],
)
def test_demand_that_moved_is_planned_for(near_rps: float, far_rps: float, now_s: float, due: bool) -> None:
    """By a quarter, whichever way."""
    reason = why_replan(PLANNED, asking(near_rps, far_rps), now_s)
    assert reason is (ReplanReason.DEMAND_CHANGED if due else None)


def test_first_plan_and_changed_pool_are_due_at_once() -> None:
    """Neither waits for a dwell time."""
    assert why_replan(NO_PLAN, asking(0.0, 0.0), 0.0) is ReplanReason.NO_PLAN
    assert (
        why_replan(PLANNED, replace(asking(6.0, 4.0), groups=[GroupCapacity("gpu", 7, {})]), YOUNG_S)
        is ReplanReason.POOL_CHANGED
    )


def test_swinging_demand_moves_workers_once_in_a_dwell_time() -> None:
    """A rate that alternates by half every second. One that alternates by a fifth moves nobody."""
    for share, most in ((1.5, 20), (1.2, 0)):
        planned, plans = PLANNED, 0
        for second in range(600):
            inputs = asking(6.0, 4.0) if second % 2 else asking(share * 6.0, share * 4.0)
            if why_replan(planned, inputs, 100.0 + second):
                planned, plans = replace(planned, rates_rps=inputs.rates_rps, made_s=100.0 + second), plans + 1
        assert plans <= most
