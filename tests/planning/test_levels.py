"""Coordinates of levels: what they cost, how they are called, and which do not go together."""

from typing import Any

import pytest

from t2i_api.names import level_value
from t2i_policy.level import Level, build_ladder, parse_level, render_level
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_policy.request.options import NOWHERE, Limits, WantedReason, choose_wanted_level, eligible_options


@pytest.mark.parametrize(
    ("level", "cost"),
    [
        (Level(0, 12), 12),
        (Level(3, 12), 9),
        (Level(0, 12, forecast=2), 7),  # 0, 1, 3, 5, 7, 9, 11
        (Level(0, 12, forecast=3), 5),  # 0, 1, 4, 7, 10
        (Level(3, 12, forecast=2), 5),  # 3, 4, 6, 8, 10
        (Level(0, 12, guided_steps=6), 9),
        (Level(0, 12, forecast=2, guided_steps=6), 5.5),  # 0, 1, 3, 5 with guidance; 7, 9, 11 at half
        (Level(0, 6, solver="unipc"), 6),
        (Level(0, 12, computed_steps=(0, 1, 4, 8)), 4),
        (Level(0, 12, guided_steps=2, computed_steps=(0, 1, 4, 8)), 3),
    ],
)
def test_cost_counts_what_the_denoiser_runs(level: Level, cost: float) -> None:
    assert level.cost == cost


@pytest.mark.parametrize(
    ("coordinates", "said"),
    [
        ({"forecast": 1}, "forecast must be at least 2"),
        ({"forecast": 2, "skipped_steps": 8}, "of at least 5 steps, got 2 of 4"),
        ({"guided_steps": 12}, "guidedSteps must be from .* to numInferenceSteps - 1 = 11"),
        ({"guided_steps": 3, "skipped_steps": 3}, "guidedSteps"),
        ({"computed_steps": (0, 2, 4)}, r"computedSteps must rise and begin with \[0, 1\], got \[0, 2, 4\]"),
        ({"computed_steps": (0, 1, 4, 4)}, "computedSteps must rise"),
        ({"computed_steps": (0, 1, 12)}, "computedSteps must be below numInferenceSteps = 12"),
        ({"computed_steps": (0, 1), "forecast": 2}, "leave out one"),
        ({"computed_steps": (8, 9), "skipped_steps": 8}, "computedSteps need at least 5 steps, got 4"),
        ({"solver": "euler-a"}, "solver must be one of dpm\\+\\+-2m, unipc"),
    ],
)
def test_coordinates_that_do_not_go_together_are_refused(coordinates: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Level(**{"skipped_steps": 0, "num_inference_steps": 12, **coordinates})


def test_documents_leave_out_coordinates_without_effect() -> None:
    assert render_level(Level(3, 12)) == {"skippedSteps": 3, "numInferenceSteps": 12}
    for level in (Level(3, 12), Level(3, 12, 2, 6, "unipc"), Level(0, 12, computed_steps=(0, 1, 4, 8))):
        assert parse_level(render_level(level)) == level


def test_labels_and_words_tell_levels_apart() -> None:
    level = Level(3, 12, 2, 6, "unipc")
    assert (Level(3, 12).label(12), Level(0, 6).label(12), level.label(12)) == ("3", "0/6", "3+f2+g6+unipc")
    assert Level(0, 12).phrase == "12 steps"
    assert Level(0, 1, model="turbo").phrase == "1 step, by the model turbo"
    assert Level(0, 12, computed_steps=(0, 1, 4, 8)).phrase == "12 steps, computing steps 0, 1, 4, 8"
    assert level.phrase == "skipping 3 of 12 steps, computing one in 2, guided in the first 6, solved by unipc"


def test_ladder_goes_by_cost() -> None:
    levels = [Level(0, 12), Level(0, 12, forecast=3), Level(0, 6), Level(3, 12)]
    assert build_ladder(12, levels).levels == (Level(0, 12), Level(3, 12), Level(0, 6), Level(0, 12, forecast=3))


def test_label_of_pods_holds_no_character_that_labels_refuse() -> None:
    assert level_value(Level(3, 12, 2, 6, "dpm++-2m")) == "3-of-12.f2.g6.dpmpp-2m"
    assert level_value(Level(3, 12)) == "3-of-12"
    long = Level(0, 100, guided_steps=50, solver="dpm++-2m", computed_steps=tuple(range(64)))
    assert len(level_value(long)) <= 63
    assert level_value(Level(0, 12, computed_steps=(0, 1, 4, 8))) == "0-of-12.c113"


def test_wanted_level_is_the_cheapest_by_what_it_computes() -> None:
    """Six steps of a short schedule are cheaper than seven computed ones of twelve, and dearer than five and a half."""
    levels = [Level(0, 12), Level(0, 6), Level(0, 12, forecast=2), Level(0, 12, forecast=2, guided_steps=6)]
    losses = tuple(BandLoss(level, -1.0, 1.01, 0.0, 0.0, 100) for level in levels[1:])
    profile = LevelProfile("digest", "cpu", 12, (0.1,), 0.0, losses)
    assert parse_profile(render_profile(profile)) == profile
    ladder, limits = build_ladder(12, levels), Limits(1.0)
    wanted = choose_wanted_level(ladder, eligible_options(ladder, profile, NOWHERE, limits), NOWHERE, limits)
    assert (wanted.level, wanted.reason) == (levels[3], WantedReason.LESS_COMPUTED)
    assert profile.service_s(levels[3], 1) == pytest.approx(0.55)


@pytest.mark.parametrize(
    "other",
    [
        Level(3, 12),
        Level(0, 11),
        Level(0, 12, forecast=2),
        Level(0, 12, guided_steps=6),
        Level(0, 12, solver="unipc"),
        Level(0, 12, computed_steps=(0, 1, 4)),
        Level(0, 12, model="turbo"),
        "0",
    ],
)
def test_levels_are_one_only_if_all_coordinates_are(other: object) -> None:
    assert Level(0, 12) != other
    assert Level(0, 12) == Level(0, 12)
    assert len({Level(0, 12), Level(0, 12), other}) == 2
