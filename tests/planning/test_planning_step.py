"""The planning loop's step: a plan when one is due, by classes of prompts, and levels for named workers."""

from dataclasses import replace

import pytest

from t2i_policy.level import Ladder, Level, build_ladder
from t2i_policy.planning.assign import assign_levels
from t2i_policy.planning.classes import MUST_BE_EXACT, NO_NEIGHBOUR, OTHER_SEED, SAME_IMAGE, ClassTable, build_classes
from t2i_policy.planning.demand import Demand
from t2i_policy.planning.plan import NO_PLAN, GroupCapacity, Plan, PlanOutcome
from t2i_policy.planning.replan import PlanInputs, ReplanReason, plan_step
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.request.options import Limits, Neighbourhood

EXACT, SKIP, SHORT = Level(0, 20), Level(10, 20), Level(0, 10)
LADDER: Ladder = build_ladder(20, [EXACT, SKIP, SHORT])
PROFILE = LevelProfile(
    "digest",
    "gpu",
    20,
    (0.1,),
    0.0,
    (
        BandLoss(SKIP, -1.0, 0.8, 0.4, 0.0, 50),
        BandLoss(SKIP, 0.8, 1.01, 0.005, 0.0, 50),
        BandLoss(SHORT, -1.0, 1.01, 0.05, 0.0, 50),
    ),
)
CLASSES: ClassTable = build_classes(LADDER, PROFILE, max_loss=0.1)
GROUPS = [GroupCapacity("gpu", 4, {EXACT: 1.0, SKIP: 2.0, SHORT: 2.0})]
FREE, STORED = Limits(0.1), frozenset({10})


def steady(rates: dict[str, float], seconds: int = 400) -> Demand:
    """Demand after a long steady stretch."""
    demand = Demand()
    for second in range(seconds):
        for name, rate in rates.items():
            demand = demand.counted(name, float(second), rate)
    return demand


CLASS_CASES = {
    "no neighbour": (Neighbourhood(None, frozenset()), FREE, NO_NEIGHBOUR),
    "a neighbour without latents is none": (Neighbourhood(0.99, frozenset()), FREE, NO_NEIGHBOUR),
    "far": (Neighbourhood(0.3, STORED), FREE, "-1.00"),
    "near": (Neighbourhood(0.8, STORED), FREE, "0.80"),
    "asked before with another seed": (Neighbourhood(0.9, STORED, repeated=True), FREE, OTHER_SEED),
    "drawn before with this seed": (Neighbourhood(1.0, STORED, same_image=True), FREE, SAME_IMAGE),
    "drawn before with this seed, latents gone": (Neighbourhood(1.0, frozenset(), same_image=True), FREE, NO_NEIGHBOUR),
    "drawn before, asked for exact": (
        Neighbourhood(1.0, STORED, same_image=True),
        replace(FREE, exact=True),
        MUST_BE_EXACT,
    ),
    "asked for exact": (Neighbourhood(0.99, STORED), replace(FREE, exact=True), MUST_BE_EXACT),
    "a schedule of its own": (Neighbourhood(0.99, STORED), replace(FREE, fixed_steps=7), MUST_BE_EXACT),
}


@pytest.mark.parametrize("case", CLASS_CASES)
def test_prompts_are_classed_by_what_they_would_lose(case: str) -> None:
    """One class a band; one for repeated prompts, one for repeated images, two for those without a choice."""
    near, limits, name = CLASS_CASES[case]
    assert CLASSES.classify(near, limits) == name


def test_classes_carry_losses_within_the_floor() -> None:
    """Harmless counts as nothing lost; what breaks the floor is not there at all."""
    assert CLASSES.losses["0.80"] == {EXACT: 0.0, SKIP: 0.0, SHORT: 0.05}
    assert CLASSES.losses["-1.00"] == {EXACT: 0.0, SHORT: 0.05}
    assert CLASSES.losses[NO_NEIGHBOUR] == {EXACT: 0.0, SHORT: 0.05}
    assert CLASSES.losses[MUST_BE_EXACT] == {EXACT: 0.0}


def step(before: Plan, demand: Demand, now_s: float = 400.0) -> Plan:
    """The plan after a look at this demand."""
    return plan_step(before, PlanInputs(CLASSES, GROUPS, demand.rates_rps(now_s)), now_s)


def test_harmless_levels_are_planned_even_at_rest() -> None:
    """Near prompts skip, as wanted; those without a neighbour run in full while there is room."""
    plan = step(NO_PLAN, steady({"0.80": 1.0, NO_NEIGHBOUR: 1.0}))
    assert plan.shift_map == {"0.80": {SKIP: 1.0}, NO_NEIGHBOUR: {EXACT: 1.0}}
    assert (plan.revision, plan.reason) == (1, ReplanReason.NO_PLAN)


def test_load_bends_prompts_without_neighbour_too() -> None:
    """The hybrid ladder: a short schedule carries what no latent can."""
    plan = step(NO_PLAN, steady({NO_NEIGHBOUR: 6.0}))
    assert plan.outcome is PlanOutcome.ALL_SERVED
    assert plan.share(NO_NEIGHBOUR, SHORT) > 0.5


def test_same_demand_keeps_the_plan() -> None:
    """No new revision."""
    demand = steady({NO_NEIGHBOUR: 3.0})
    first = step(NO_PLAN, demand)
    second = step(first, demand.counted(NO_NEIGHBOUR, 401.0, 3.0), 401.0)
    assert second is first


PLAN = Plan({("gpu", EXACT): 2, ("gpu", SKIP): 2}, {"c": {EXACT: 0.25, SKIP: 0.75}})


def test_draw_follows_the_shift_map() -> None:
    """Shares of draws are the map's, most steps first; a class without a row has no draw."""
    assert [PLAN.draw("c", draw) for draw in (0.0, 0.24, 0.26, 0.999)] == [EXACT, EXACT, SKIP, SKIP]
    assert PLAN.draw("another", 0.5) is None


def test_levels_move_as_few_workers_as_possible() -> None:
    """Who is right already stays; the rest fill in; counts are the plan's."""
    names = [f"gpu-{n}" for n in range(4)]
    first = assign_levels(PLAN, {"gpu": names}, {})
    assert sorted(first.values()) == [EXACT, EXACT, SKIP, SKIP]
    assert assign_levels(PLAN, {"gpu": names}, first) == first
    shifted = replace(PLAN, workers={("gpu", EXACT): 1, ("gpu", SKIP): 3})
    second = assign_levels(shifted, {"gpu": names}, first)
    assert sum(first[name] != second[name] for name in names) == 1


def test_more_workers_than_planned_for_stand_somewhere() -> None:
    """One that came since the plan takes a level too; a group the plan does not know is left out."""
    levels = assign_levels(PLAN, {"gpu": [f"gpu-{n}" for n in range(5)], "other": ["x"]}, {})
    assert set(levels) == {f"gpu-{n}" for n in range(5)}
