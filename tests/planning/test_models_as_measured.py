"""A model that draws otherwise than its profile was measured is not planned as if it had been. One rule for all."""

from dataclasses import replace
from typing import Any

import pytest

from small_pools import RULES
from t2i_api.pool import PoolSpec
from t2i_policy.level import Level
from t2i_policy.measured_with import UNKNOWN, MeasuredWith
from t2i_policy.model_section import ModelSection
from t2i_policy.profile import BandLoss, LevelProfile, ModelUnmeasured

STEPS = 4
DRAWN = MeasuredWith(7.0, "bf16", ("pixel", "papercut"))
ADAPTERS = [{"name": "pixel", "source": "hf://acme/pixel"}, {"name": "papercut", "source": "hf://acme/papercut"}]
FITTING: dict[str, Any] = {"numInferenceSteps": STEPS, "guidanceScalePercent": 700, "precision": "bf16"}
LOSSES = (BandLoss(Level(0, STEPS, model="few"), -1.0, 1.01, 0.1, 0.0, 99),)


def profile_of(own: MeasuredWith = DRAWN, few: MeasuredWith = DRAWN) -> LevelProfile:
    """Of a model and of `few`, both of four steps."""
    section = ModelSection("few", STEPS, (0.1,), 0.0, LOSSES, measured_with=few)
    return replace(RULES.profile, base_steps=STEPS, losses=(), models=(section,), measured_with=own)


def spec_of(own: dict[str, Any], few: dict[str, Any]) -> PoolSpec:
    """A pool of both that draws as it was measured but for what is given."""
    own, few = ({**FITTING, "adapters": ADAPTERS, **changes} for changes in (own, few))
    groups = [
        {"name": "a", "workers": 1},
        {"name": "b", "workers": 1, "model": {"name": "few", "source": "hf://acme/few", **few}},
    ]
    return PoolSpec.model_validate({"model": {"source": "hf://acme/own", **own}, "workerGroups": groups})


DIFFERENCES: dict[str, tuple[dict[str, Any], str, str]] = {
    "steps": (
        {"numInferenceSteps": 8},
        "measured at 4 steps, its numInferenceSteps in {} is 8: ",
        "set numInferenceSteps to 4",
    ),
    "guidance": (
        {"guidanceScalePercent": 450},
        "measured at guidance scale 7, its guidanceScalePercent in {} is 450: ",
        "set guidanceScalePercent to 700",
    ),
    "precision": (
        {"precision": "fp8"},
        "measured in bf16, its precision in {} is fp8: ",
        "set precision to bf16",
    ),
    "an adapter more": (
        {"adapters": [*ADAPTERS, {"name": "toon", "source": "hf://acme/toon"}]},
        "measured with adapters pixel, papercut, its adapters in {} is pixel, papercut, toon: ",
        "leave out toon",
    ),
}


@pytest.mark.parametrize("of_own", [True, False], ids=["the pool's own model", "a group's model"])
@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_difference_names_the_field_both_values_and_the_next_step(name: str, of_own: bool) -> None:
    changes, told, instead = DIFFERENCES[name]
    spec = spec_of(changes, {}) if of_own else spec_of({}, changes)
    who, place = ("the pool's own model", "model") if of_own else ("models: 'few'", "workerGroups")
    with pytest.raises(ModelUnmeasured) as raised:
        spec.choose_ladder(profile_of())
    expected = f"{who} was {told.format(place)}measure it again with t2ictl profile, or {instead}"
    assert str(raised.value) == expected


@pytest.mark.parametrize("of_own", [True, False], ids=["the pool's own model", "a group's model"])
def test_adapters_of_a_model_measured_without_any_are_told(of_own: bool) -> None:
    bare = DRAWN._replace(adapters=())
    profile = profile_of(own=bare) if of_own else profile_of(few=bare)
    with pytest.raises(ModelUnmeasured, match=r"was measured without adapters, .* is pixel, papercut: "):
        spec_of({}, {}).choose_ladder(profile)


@pytest.mark.parametrize("changes", [{}, {"adapters": ADAPTERS[:1]}, {"adapters": []}], ids=["all", "one", "none"])
def test_a_model_as_measured_is_planned_with_all_or_fewer_of_its_adapters(changes: dict[str, Any]) -> None:
    """Nobody asks for an adapter that the pool does not offer."""
    spec_of(changes, changes).choose_ladder(profile_of())


@pytest.mark.parametrize("name", [name for name in DIFFERENCES if name != "steps"])
def test_what_a_profile_does_not_say_is_not_held_against_the_pool(name: str) -> None:
    """Profiles of before do not: their pools go on."""
    changes = DIFFERENCES[name][0]
    spec_of(changes, changes).choose_ladder(profile_of(UNKNOWN, UNKNOWN))
