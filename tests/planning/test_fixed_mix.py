"""A Fixed mix: the workers stay, prompts are spread over their levels, at rest too."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from t2i_api.pool import PoolSpec
from t2i_policy.level import Ladder, Level, build_ladder
from t2i_policy.planning.classes import MUST_BE_EXACT, NO_NEIGHBOUR, SAME_IMAGE, build_classes
from t2i_policy.planning.demand import Demand
from t2i_policy.planning.plan import NO_PLAN, GroupCapacity, Places, Plan, PlanOutcome, make_plan
from t2i_policy.planning.replan import PlanInputs, plan_step
from t2i_policy.policies import PoolState, PromptAware
from t2i_policy.pool_view import PoolView, WorkerView
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.request.decide import Arrival, Rules
from t2i_policy.request.options import Limits, Neighbourhood

EXACT, SKIP, SHORT = Level(0, 20), Level(10, 20), Level(0, 10)
LADDER: Ladder = build_ladder(20, [EXACT, SKIP, SHORT])
LOSSES = (
    BandLoss(SKIP, -1.0, 0.8, 0.4, 0.0, 50),
    BandLoss(SKIP, 0.8, 1.01, 0.005, 0.0, 50),
    BandLoss(SHORT, -1.0, 1.01, 0.05, 0.0, 50),
)
PROFILE = LevelProfile("digest", "gpu", 20, (0.1,), 0.0, LOSSES)
RULES = Rules(LADDER, PROFILE, 30.0, build_classes(LADDER, PROFILE, max_loss=0.1))
ALL_SHORT, ALL_SKIP, MIX = {("gpu", SHORT): 3}, {("gpu", SKIP): 3}, {("gpu", EXACT): 1, ("gpu", SHORT): 2}
GROUPS = (GroupCapacity("gpu", 3, {EXACT: 1.0, SKIP: 2.0, SHORT: 2.0}),)
IDLE = PoolView((WorkerView("gpu-0", True, 0, 0, 1, (0.1,), 0.0, 0),), 0, 0)
STEADY_S = 400


def seen(rate_rps: float, now_s: int = STEADY_S) -> PoolState:
    """A long steady stretch of prompts without a neighbour."""
    demand = Demand()
    for second in range(now_s if rate_rps else 0):
        demand = demand.counted(NO_NEIGHBOUR, float(second), rate_rps)
    return PoolState(now_s, demand, GROUPS, IDLE)


def served(mix: Places, rate_rps: float, draw: float, **limits: Any) -> Level:
    """The level of a prompt without a neighbour on an idle pool, after the slow loop's step."""
    policy = PromptAware(pinned=mix)
    plan = policy.replan(RULES, NO_PLAN, seen(rate_rps))
    arrival = Arrival(Limits(0.1, **limits), Neighbourhood(None, frozenset()), 30.0, draw)
    return policy.serve(RULES, plan, arrival, IDLE).served.level


def plan_for(mix: Places, rates_rps: dict[str, float], groups: Sequence[GroupCapacity] = GROUPS) -> Plan:
    """The first plan."""
    return plan_step(NO_PLAN, PlanInputs(RULES.classes, groups, rates_rps, mix), 0.0)


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.99])
def test_idle_pool_serves_at_the_mix(draw: float) -> None:
    """Three workers at the short schedule: that is what is drawn, though there is time for more. Under a planned mix
    the same pool serves what the prompt wants.
    """
    assert served(ALL_SHORT, 0.0, draw) == SHORT
    ours = PromptAware()
    arrival = Arrival(Limits(0.1), Neighbourhood(None, frozenset()), 30.0, draw)
    assert ours.serve(RULES, ours.replan(RULES, NO_PLAN, seen(0.0)), arrival, IDLE).served.level == EXACT


def test_floor_of_a_request_stands_above_the_mix() -> None:
    """It asked for exact: every worker can."""
    assert served(ALL_SHORT, 0.0, 0.5, exact=True) == EXACT


def test_prompts_go_where_they_lose_least_while_its_workers_keep_up() -> None:
    """One worker at full steps makes 1 image/s, two at half make 4. Of 0.5/s all are exact, of 2/s about a half."""
    assert [served(MIX, 0.5, draw) for draw in (0.0, 0.99)] == [EXACT, EXACT]
    assert [served(MIX, 2.0, draw) for draw in (0.1, 0.9)] == [EXACT, SHORT]


def test_workers_never_move() -> None:
    """Demand comes and goes: other shares, the same places; and a plan only if demand moved enough."""
    policy = PromptAware(pinned=MIX)
    first = policy.replan(RULES, NO_PLAN, seen(0.5))
    busy = policy.replan(RULES, first, seen(2.0, STEADY_S + 30))
    again = policy.replan(RULES, busy, seen(2.05, STEADY_S + 60))
    assert first.workers == busy.workers == MIX
    assert first.shift_map != busy.shift_map
    assert again is busy
    assert again.binds


def test_what_no_level_of_the_mix_may_serve_is_drawn_nowhere() -> None:
    """All at skipped steps: prompts without a neighbour have no latent to start from. They are told as shed once they
    come, and served at what they want.
    """
    quiet = plan_for(ALL_SKIP, {})
    assert quiet.shift_map.keys() == {"0.80", SAME_IMAGE}
    assert quiet.outcome is PlanOutcome.NO_DEMAND
    busy = plan_for(ALL_SKIP, {NO_NEIGHBOUR: 1.0})
    assert busy.outcome is PlanOutcome.SOME_SHED
    assert busy.shift_map.keys() == {"0.80", SAME_IMAGE}
    assert served(ALL_SKIP, 1.0, 0.5) == EXACT


def test_classes_without_demand_keep_their_rows_beside_others() -> None:
    """Busy with prompts that may not bend: those without a neighbour still have where to go."""
    plan = plan_for(MIX, {MUST_BE_EXACT: 0.9})
    assert plan.demand_rps == pytest.approx(0.9)
    assert plan.share(MUST_BE_EXACT, EXACT) == pytest.approx(1.0)
    assert sum(plan.shift_map[NO_NEIGHBOUR].values()) == pytest.approx(1.0)


def test_group_that_is_away_carries_nothing_until_it_is_there() -> None:
    """The exact worker is away: what has demand goes to the short ones. Once it is ready there is a new plan, whatever
    the demand does.
    """
    policy = PromptAware(pinned={("cpu", EXACT): 1, ("gpu", SHORT): 2})
    without = policy.replan(RULES, NO_PLAN, seen(0.5))
    assert without.shift_map[NO_NEIGHBOUR].keys() == {SHORT}
    here = seen(0.5)
    both = replace(here, groups=(*here.groups, GroupCapacity("cpu", 1, {EXACT: 1.0})))
    again = policy.replan(RULES, without, both)
    assert again.shift_map[NO_NEIGHBOUR].keys() == {EXACT}
    assert again.workers == without.workers == {("cpu", EXACT): 1, ("gpu", SHORT): 2}


def test_class_without_room_goes_where_it_loses_least() -> None:
    """More demand than the mix makes: whom the plan sheds is still drawn within the mix."""
    rates = {MUST_BE_EXACT: 2.0, NO_NEIGHBOUR: 8.0, "0.80": 4.2}
    plan = plan_for(MIX, rates)
    assert plan.outcome is PlanOutcome.SOME_SHED
    for name in rates:
        assert sum(plan.shift_map[name].values()) == pytest.approx(1.0)


def test_slow_workers_bind_too() -> None:
    """An exact image is too long for the SLO under load, so it counts as no capacity; at rest the mix holds."""
    slow = (GroupCapacity("gpu", 3, {EXACT: 0.0, SHORT: 0.001}),)
    plan = plan_for({("gpu", EXACT): 2, ("gpu", SHORT): 1}, {}, slow)
    assert plan.share(NO_NEIGHBOUR, EXACT) == 1.0
    assert plan.share(MUST_BE_EXACT, EXACT) == 1.0


@pytest.mark.parametrize("time_limit_s", [60.0, 0.0], ids=["solved", "out of time"])
def test_pins_hold_however_the_plan_is_found(time_limit_s: float) -> None:
    """The greedy plan moves nobody either, and serves as much as the mix makes."""
    classes = RULES.classes.with_rates({NO_NEIGHBOUR: 4.0, MUST_BE_EXACT: 0.5})
    plan = make_plan(GROUPS, classes, pinned=MIX, time_limit_s=time_limit_s)
    assert (plan.workers, plan.binds) == (MIX, True)
    assert plan.shed_rps == pytest.approx(0.0)


def test_mix_that_begins_changes_or_ends_is_planned_at_once() -> None:
    """Whatever the demand does; the same mix stays."""
    inputs = PlanInputs(RULES.classes, GROUPS, {NO_NEIGHBOUR: 1.0}, MIX)
    plan = plan_step(NO_PLAN, inputs, 0.0)
    assert plan_step(plan, inputs, 1.0) is plan
    other = plan_step(plan, replace(inputs, pinned=ALL_SHORT), 1.0)
    auto = plan_step(other, replace(inputs, pinned={}), 2.0)
    again = plan_step(auto, inputs, 3.0)
    assert [one.reason for one in (plan, other, auto, again)] == ["NoPlan", *["SpecChanged"] * 3]
    assert [one.binds for one in (plan, other, auto, again)] == [True, True, False, True]
    assert again.revision == 4


def test_new_measurement_changes_what_is_drawn_without_demand() -> None:
    """The short schedule now loses more than the pool's floor allows."""
    plan = plan_for(ALL_SHORT, {})
    strict = build_classes(LADDER, PROFILE, max_loss=0.01)
    after = plan_step(plan, PlanInputs(strict, GROUPS, {}, ALL_SHORT), 1.0)
    assert after.revision == 2
    assert NO_NEIGHBOUR in plan.shift_map
    assert NO_NEIGHBOUR not in after.shift_map


def test_mix_of_the_spec_fills_the_groups_in_order() -> None:
    """Levels of most steps first; a planned mix pins nobody."""
    model = {"source": "builtin://scenes", "numInferenceSteps": 20, "width": 48, "height": 48}
    mix = [{"numInferenceSteps": 10, "workers": 2}, {"workers": 3}]
    document = {
        "model": model,
        "levels": [{"skippedSteps": 0}, {"numInferenceSteps": 10}],
        "mix": {"mode": "Fixed", "workers": mix},
        "workerGroups": [{"name": "b", "workers": 4}, {"name": "a", "workers": 1}],
    }
    fixed = PoolSpec.model_validate(document)
    assert fixed.pinned_workers == {("b", EXACT): 3, ("b", SHORT): 1, ("a", SHORT): 1}
    assert PoolSpec.model_validate({**document, "mix": {"mode": "Auto"}}).pinned_workers == {}
