"""The seed is an input of the decision: another seed is another picture, the same one is the same image, cheaply."""

from dataclasses import replace

import pytest

from t2i_policy.level import Level, build_ladder
from t2i_policy.planning.classes import OTHER_SEED, SAME_IMAGE, build_classes
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_policy.request.explain import outlook
from t2i_policy.request.options import Limits, Neighbourhood, choose_wanted_level, eligible_options

EXACT, EARLY, LATE, SHORT = Level(0, 20), Level(5, 20), Level(15, 20), Level(0, 12)
LADDER = build_ladder(20, [EXACT, EARLY, LATE, SHORT])
STORED = frozenset({5, 15})
FREE = Limits(0.2)
SIMILAR = Neighbourhood(0.97, STORED)
REPEATED = Neighbourhood(1.0, STORED, repeated=True)
SAME = Neighbourhood(1.0, STORED, same_image=True)


def profile(early: float | None, late: float | None) -> LevelProfile:
    """Skips lose nothing of quality; of diversity these shares."""
    losses = (
        BandLoss(EARLY, -1.0, 1.01, 0.0, 0.001, 50, early, 0.01 if early is not None else 0.0),
        BandLoss(LATE, -1.0, 1.01, 0.0, 0.001, 50, late, 0.01 if late is not None else 0.0),
        BandLoss(SHORT, -1.0, 1.01, 0.005, 0.001, 50, 0.0, 0.001),
    )
    return LevelProfile("digest", "test", 20, (0.1,), 0.0, losses)


def wanted(measured: LevelProfile, near: Neighbourhood, limits: Limits = FREE) -> tuple[Level, str]:
    options = eligible_options(LADDER, measured, near, limits)
    chosen = choose_wanted_level(LADDER, options, near, limits)
    return chosen.level, str(chosen.reason)


CASES = {
    "a similar prompt, asked for the first time": (SIMILAR, FREE, LATE, "SimilarCached"),
    "asked before with another seed": (REPEATED, FREE, SHORT, "ShortSchedule"),
    "a similar prompt that was asked before with another seed": (
        replace(SIMILAR, repeated=True),
        FREE,
        SHORT,
        "ShortSchedule",
    ),
    "all but the words of a cached prompt": (Neighbourhood(0.995, STORED), FREE, SHORT, "ShortSchedule"),
    "the same prompt and seed": (SAME, FREE, LATE, "SameImageCached"),
    "the same prompt and seed, no loss allowed": (SAME, Limits(0.0), LATE, "SameImageCached"),
    "the same prompt and seed, few skips allowed": (SAME, Limits(0.0, max_skipped_steps=5), EARLY, "SameImageCached"),
    "the same prompt and seed, exact": (SAME, Limits(0.2, exact=True), EXACT, "ExactRequested"),
    "another seed, no loss allowed": (REPEATED, Limits(0.0), EXACT, "NothingHarmless"),
}


@pytest.mark.parametrize("case", CASES)
def test_seed_decides_which_latents_help(case: str) -> None:
    """Four seeds of one prompt all resumed late and were one image; a client could not try again."""
    near, limits, level, reason = CASES[case]
    assert wanted(profile(0.4, 0.9), near, limits) == (level, reason)


def test_level_that_keeps_diversity_serves_repeats_too() -> None:
    """It is measured, not assumed: a skip whose images differ as exact ones do is as good for another seed."""
    assert wanted(profile(-0.02, 0.9), REPEATED)[0] == SHORT
    options = eligible_options(LADDER, profile(-0.02, 0.9), REPEATED, FREE)
    assert {option.level for option in options} == {EXACT, EARLY, SHORT}


def test_diversity_that_was_never_measured_counts_as_lost() -> None:
    """A profile of before served repeated prompts from their own latents; it says nothing of how they differ."""
    assert wanted(profile(None, None), REPEATED)[0] == SHORT
    assert wanted(profile(None, None), SIMILAR)[0] == LATE


def test_planner_sees_what_repeats_lose() -> None:
    """Their class may have what a request of it may have, and nothing else."""
    classes = build_classes(LADDER, profile(0.1, 0.9), max_loss=0.2)
    assert set(classes.losses[OTHER_SEED]) == {EXACT, EARLY, SHORT}
    assert classes.losses[OTHER_SEED][EARLY] == pytest.approx(0.111)
    assert classes.losses[SAME_IMAGE] == {EXACT: 0.0, EARLY: 0.0, LATE: 0.0, SHORT: 0.0}


def test_people_are_told_why() -> None:
    """The outlook says that seeds would be less different, and by how much."""
    entries = {entry.level: entry for entry in outlook(LADDER, profile(0.4, 0.9), REPEATED, FREE)}
    assert (entries[LATE].reason, "90% less different" in entries[LATE].explanation) == ("BelowQualityFloor", True)
    kept = {entry.level: entry for entry in outlook(LADDER, profile(0.4, -0.05), REPEATED, FREE)}
    assert "not less different" in kept[LATE].explanation
    again = {entry.level: entry for entry in outlook(LADDER, profile(0.4, 0.9), SAME, FREE)}
    assert again[LATE].eligible
    assert "the same image" in again[LATE].explanation


def test_measured_diversity_survives_the_file() -> None:
    """What is written is read; a profile without it reads as one."""
    for measured in (profile(0.4, 0.9), profile(None, None)):
        assert parse_profile(render_profile(measured)) == measured
