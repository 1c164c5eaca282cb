"""A request that demands a model: only its levels, whatever it says beside, and never in silence below a floor."""

from dataclasses import replace

import pytest

from small_pools import ANYTHING, EXACT, RULES, asks
from t2i_policy.frontier import choose_ladder
from t2i_policy.level import Level
from t2i_policy.model_section import ModelSection
from t2i_policy.planning.classes import MUST_BE_EXACT, NO_NEIGHBOUR
from t2i_policy.profile import BandLoss
from t2i_policy.request.decide import build_rules
from t2i_policy.request.explain import outlook
from t2i_policy.request.options import (
    NOWHERE,
    IneligibleReason,
    Limits,
    WantedReason,
    breaks_floor,
    eligible_options,
)

TURBO, HALF = Level(0, 4, model="turbo"), Level(0, 2, model="turbo")
BANDS = (BandLoss(TURBO, -1.0, 1.01, 0.05, 0.0, 100), BandLoss(HALF, -1.0, 1.01, 0.12, 0.0, 100))
PROFILE = replace(RULES.profile, models=(ModelSection("turbo", 4, (0.04,), 0.1, BANDS),))
LADDER = choose_ladder(50, RULES.ladder.levels, PROFILE, models=("turbo",)).ladder
TWO = build_rules(LADDER, PROFILE, RULES.slo_s, 1.0)
MODELS = {"any": None, "own": "", "other": "turbo"}


@pytest.mark.parametrize("demand", MODELS)
def test_only_levels_of_the_demanded_model_are_options(demand: str) -> None:
    model = MODELS[demand]
    options = eligible_options(LADDER, PROFILE, asks(0.97).near, replace(ANYTHING, model=model))
    served = {option.level.model for option in options}
    assert served == ({"", "turbo"} if model is None else {model})
    assert (EXACT in {option.level for option in options}) == (model != "turbo")


def test_demand_for_another_model_is_told_as_the_reason() -> None:
    limits = replace(ANYTHING, model="turbo")
    judged = TWO.judge(NOWHERE, limits)
    assert judged.wanted.reason is WantedReason.MODEL_REQUESTED
    assert judged.prompt_class == NO_NEIGHBOUR
    assert TWO.judge(NOWHERE, replace(limits, model="")).wanted.reason is WantedReason.NO_NEIGHBOUR


@pytest.mark.parametrize(("max_loss", "level"), [(0.2, HALF), (0.1, TURBO), (0.02, TURBO)])
def test_floor_that_no_level_of_the_model_keeps_is_broken(max_loss: float, level: Level) -> None:
    """There is always an option, so that the shell can say what the model would lose."""
    limits = Limits(max_loss, model="turbo")
    options = eligible_options(LADDER, PROFILE, NOWHERE, limits)
    assert options[0].level == level
    assert breaks_floor(options[0], limits) is (max_loss == 0.02)
    assert not breaks_floor(options[0], replace(limits, model=None))


def test_fixed_schedule_is_the_demanded_model_s() -> None:
    for model, level in ((None, Level(0, 3)), ("", Level(0, 3)), ("turbo", Level(0, 3, model="turbo"))):
        limits = Limits(0.0, fixed_steps=3, model=model)
        assert [option.level for option in eligible_options(LADDER, PROFILE, NOWHERE, limits)] == [level]
        assert outlook(LADDER, PROFILE, NOWHERE, limits)[0].level == level


def test_what_nobody_measured_runs_the_full_schedule_of_the_demanded_model() -> None:
    """It asks nothing of the pool's own model, so it does not count as demand for exact images."""
    limits = Limits(0.1, measured=False, model="turbo")
    assert [option.level for option in eligible_options(LADDER, PROFILE, NOWHERE, limits)] == [TURBO]
    assert TWO.classes.classify(NOWHERE, limits) == NO_NEIGHBOUR
    assert TWO.classes.classify(NOWHERE, replace(limits, model="")) == MUST_BE_EXACT


@pytest.mark.parametrize("measured", [True, False])
@pytest.mark.parametrize("demand", MODELS)
def test_outlook_agrees_with_what_may_be_served(demand: str, measured: bool) -> None:
    limits = Limits(0.1, measured=measured, model=MODELS[demand])
    told = outlook(LADDER, PROFILE, asks(0.97).near, limits)
    options = eligible_options(LADDER, PROFILE, asks(0.97).near, limits)
    assert {one.level for one in told if one.eligible} == {option.level for option in options}
    others = {one.reason for one in told if MODELS[demand] is not None and one.level.model != MODELS[demand]}
    assert others <= {IneligibleReason.MODEL_REQUESTED}
