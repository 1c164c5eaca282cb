"""When a new plan is due: at once for a rise, late for a fall, never to and fro."""

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
    ("near_rps", "far_rps", "now_s", "reason"),
    [
        pytest.param(6.0, 4.0, OLD_S, None, id="as planned"),
        pytest.param(6.4, 4.4, OLD_S, None, id="within the margin"),
        pytest.param(7.0, 4.5, YOUNG_S, ReplanReason.DEMAND_ROSE, id="a rise is answered at once"),
        pytest.param(4.0, 3.0, YOUNG_S, None, id="a fall waits"),
        pytest.param(4.0, 3.0, OLD_S, ReplanReason.DEMAND_FELL, id="a fall that lasts"),
        pytest.param(5.5, 3.5, OLD_S, None, id="a small fall is left"),
        pytest.param(3.0, 7.0, YOUNG_S, None, id="another mix waits"),
        pytest.param(3.0, 7.0, OLD_S, ReplanReason.MIX_SHIFTED, id="another mix that lasts"),
        pytest.param(0.0, 0.0, OLD_S, ReplanReason.DEMAND_FELL, id="silence"),
    ],
)
def test_reason(near_rps: float, far_rps: float, now_s: float, reason: ReplanReason | None) -> None:
    """One reason each; None = the plan stays."""
    assert why_replan(PLANNED, asking(near_rps, far_rps), now_s) is reason


def test_first_plan_and_changed_pool_are_due_at_once() -> None:
    """Neither waits for a dwell time."""
    assert why_replan(NO_PLAN, asking(0.0, 0.0), 0.0) is ReplanReason.NO_PLAN
    assert (
        why_replan(PLANNED, replace(asking(6.0, 4.0), groups=[GroupCapacity("gpu", 7, {})]), YOUNG_S)
        is ReplanReason.POOL_CHANGED
    )


def test_swinging_demand_does_not_swing_the_plan() -> None:
    """A rate that alternates by 20 % every second: one plan for the upper value, then none."""
    planned, plans = PLANNED, 0
    for second in range(600):
        inputs = asking(6.0, 4.0) if second % 2 else asking(7.2, 4.8)
        if why_replan(planned, inputs, 100.0 + second):
            planned, plans = replace(planned, rates_rps=inputs.rates_rps, made_s=100.0 + second), plans + 1
    assert plans == 1
