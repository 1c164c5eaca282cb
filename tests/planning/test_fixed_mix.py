"""A Fixed mix: the workers stay, prompts are spread over their levels, at rest too."""

from dataclasses import replace
from typing import Any

import pytest

from t2i_api.pool import PoolSpec
from t2i_policy.level import Ladder, Level, build_ladder
from t2i_policy.planning.classes import MUST_BE_EXACT, NO_NEIGHBOUR, SAME_IMAGE, build_classes
from t2i_policy.planning.demand import Demand
from t2i_policy.planning.fixed_mix import FixedMix, lay_out, serving_policy, with_shifts
from t2i_policy.planning.plan import GroupCapacity, PlanOutcome, PlanRules
from t2i_policy.policies import Course, PoolState, PromptAware
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
SIZES = {"gpu": 3}
GROUPS = (GroupCapacity("gpu", 3, {EXACT: 1.0, SKIP: 2.0, SHORT: 2.0}),)
IDLE = PoolView((WorkerView("gpu-0", True, 0, 0, 1, (0.1,), 0.0, 0),), 0, 0)
STEADY_S = 400


def seen(rate_rps: float, now_s: float = STEADY_S) -> PoolState:
    """A long steady stretch of prompts without a neighbour."""
    demand = Demand()
    for second in range(STEADY_S if rate_rps else 0):
        demand = demand.counted(NO_NEIGHBOUR, float(second), rate_rps)
    return PoolState(now_s, demand, GROUPS, IDLE)


def served(mix: dict[Level, int], rate_rps: float, draw: float, **limits: Any) -> Level:
    """The level of a prompt without a neighbour on an idle pool, after the slow loop's step."""
    policy = FixedMix(by_level=mix, sizes=SIZES)
    course = policy.replan(RULES, Course(), seen(rate_rps))
    arrival = Arrival(Limits(0.1, **limits), Neighbourhood(None, frozenset()), 30.0, draw)
    return policy.serve(RULES, course, arrival, IDLE).served.level


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.99])
def test_idle_pool_serves_at_the_mix(draw: float) -> None:
    """Three workers at the short schedule: that is what is drawn, though there is time for more. Under a planned mix
    the same pool serves what the prompt wants.
    """
    assert served({SHORT: 3}, 0.0, draw) == SHORT
    ours = PromptAware()
    arrival = Arrival(Limits(0.1), Neighbourhood(None, frozenset()), 30.0, draw)
    assert ours.serve(RULES, ours.replan(RULES, Course(), seen(0.0)), arrival, IDLE).served.level == EXACT


def test_floor_of_a_request_stands_above_the_mix() -> None:
    """It asked for exact: every worker can."""
    assert served({SHORT: 3}, 0.0, 0.5, exact=True) == EXACT


def test_prompts_go_where_they_lose_least_while_its_workers_keep_up() -> None:
    """One worker at full steps makes 1 image/s, two at half make 4. Of 0.5/s all are exact, of 2/s about a half."""
    mix = {EXACT: 1, SHORT: 2}
    assert [served(mix, 0.5, draw) for draw in (0.0, 0.99)] == [EXACT, EXACT]
    assert [served(mix, 2.0, draw) for draw in (0.1, 0.9)] == [EXACT, SHORT]


def test_workers_never_move() -> None:
    """Demand comes and goes: other shares, the same places; and a plan only if demand moved enough."""
    policy = FixedMix(by_level={EXACT: 1, SHORT: 2}, sizes=SIZES)
    first = policy.replan(RULES, Course(), seen(0.5))
    busy = policy.replan(RULES, first, seen(2.0))
    again = policy.replan(RULES, busy, seen(2.05))
    assert first.plan.workers == busy.plan.workers == {("gpu", EXACT): 1, ("gpu", SHORT): 2}
    assert first.plan.shift_map != busy.plan.shift_map
    assert again.plan is busy.plan
    assert again.plan.binds


def test_what_no_level_of_the_mix_may_serve_is_drawn_nowhere() -> None:
    """All at skipped steps: prompts without a neighbour have no latent to start from. They are told as shed once they
    come, and served at what they want.
    """
    quiet = with_shifts(lay_out({SKIP: 3}, SIZES), GROUPS, RULES.classes, {}, PlanRules())
    assert quiet.shift_map.keys() == {"0.80", SAME_IMAGE}
    assert quiet.outcome is PlanOutcome.NO_DEMAND
    busy = with_shifts(lay_out({SKIP: 3}, SIZES), GROUPS, RULES.classes, {NO_NEIGHBOUR: 1.0}, PlanRules())
    assert busy.outcome is PlanOutcome.SOME_SHED
    assert busy.shift_map.keys() == {"0.80", SAME_IMAGE}
    assert served({SKIP: 3}, 1.0, 0.5) == EXACT


def test_classes_without_demand_keep_their_rows_beside_others() -> None:
    """Busy with prompts that may not bend: those without a neighbour still have where to go."""
    mix = lay_out({EXACT: 1, SHORT: 2}, SIZES)
    plan = with_shifts(mix, GROUPS, RULES.classes, {MUST_BE_EXACT: 0.9}, PlanRules())
    assert plan.demand_rps == pytest.approx(0.9)
    assert plan.share(MUST_BE_EXACT, EXACT) == pytest.approx(1.0)
    assert sum(plan.shift_map[NO_NEIGHBOUR].values()) == pytest.approx(1.0)


def test_group_that_is_away_carries_nothing_until_it_is_there() -> None:
    """The exact worker is away: what has demand goes to the short ones. Once it is ready there is a new plan, whatever
    the demand does.
    """
    policy = FixedMix(by_level={EXACT: 1, SHORT: 2}, sizes={"cpu": 1, "gpu": 2})
    without = policy.replan(RULES, Course(), seen(0.5))
    assert without.plan.shift_map[NO_NEIGHBOUR].keys() == {SHORT}
    here = seen(0.5)
    both = replace(here, groups=(*here.groups, GroupCapacity("cpu", 1, {EXACT: 1.0})))
    again = policy.replan(RULES, without, both)
    assert again.plan.shift_map[NO_NEIGHBOUR].keys() == {EXACT}
    assert again.plan.workers == without.plan.workers == {("cpu", EXACT): 1, ("gpu", SHORT): 2}


def test_class_without_room_goes_where_it_loses_least() -> None:
    """More demand than the mix makes: whom the plan sheds is still drawn within the mix."""
    rates = {MUST_BE_EXACT: 2.0, NO_NEIGHBOUR: 8.0, "0.80": 4.2}
    plan = with_shifts(lay_out({EXACT: 1, SHORT: 2}, SIZES), GROUPS, RULES.classes, rates, PlanRules())
    assert plan.outcome is PlanOutcome.SOME_SHED
    for name in rates:
        assert sum(plan.shift_map[name].values()) == pytest.approx(1.0)


def test_slow_workers_bind_too() -> None:
    """An exact image is too long for the SLO under load, so it counts as no capacity; at rest the mix holds."""
    slow = (GroupCapacity("gpu", 3, {EXACT: 0.0, SHORT: 0.001}),)
    plan = with_shifts(lay_out({EXACT: 2, SHORT: 1}, SIZES), slow, RULES.classes, {}, PlanRules())
    assert plan.share(NO_NEIGHBOUR, EXACT) == 1.0
    assert plan.share(MUST_BE_EXACT, EXACT) == 1.0


@pytest.mark.parametrize(("mode", "kind"), [("Auto", PromptAware), ("Fixed", FixedMix)])
def test_pool_gets_the_policy_that_it_asks_for(mode: str, kind: type[PromptAware]) -> None:
    """Gateways that plan for themselves and the simulator ask here."""
    model = {"source": "builtin://scenes", "numInferenceSteps": 20, "width": 48, "height": 48}
    workers = [{"numInferenceSteps": 10, "workers": 3}] if mode == "Fixed" else []
    document = {
        "model": model,
        "levels": [{"skippedSteps": 0}, {"numInferenceSteps": 10}],
        "mix": {"mode": mode, "workers": workers},
        "workerGroups": [{"name": "gpu", "workers": 3}],
    }
    spec = PoolSpec.model_validate(document)
    policy = serving_policy(spec.fixed_workers, spec.group_sizes)
    assert type(policy) is kind
    assert policy.name == "prompt-aware"
    if isinstance(policy, FixedMix):
        assert (policy.by_level, policy.sizes) == ({SHORT: 3}, SIZES)
