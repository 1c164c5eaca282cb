"""The wanted level: cheapest level whose measured loss bound is harmless, and never one that is not allowed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_policy.level import Ladder, Level, build_ladder
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_policy.request.options import (
    NOWHERE,
    Limits,
    Neighbourhood,
    WantedReason,
    choose_wanted_level,
    eligible_options,
)

BASE = 20
EXACT, SKIP5, SKIP15, SHORT = Level(0, BASE), Level(5, BASE), Level(15, BASE), Level(0, 8)
LADDER = build_ladder(BASE, [EXACT, SKIP5, SKIP15, SHORT])


def band(level: Level, low: float, high: float, loss: float) -> BandLoss:
    return BandLoss(level, low, high, mean_loss=loss, standard_error=0.001, num_samples=50)


PROFILE = LevelProfile(
    model_digest="sha256:test",
    device="test",
    base_steps=BASE,
    step_s=(0.02, 0.03),
    fixed_s=0.01,
    losses=(
        band(SKIP5, -1.0, 0.7, 0.05),
        band(SKIP5, 0.7, 1.01, 0.001),
        band(SKIP15, -1.0, 0.7, 0.40),
        band(SKIP15, 0.7, 0.95, 0.10),
        band(SKIP15, 0.95, 1.01, 0.002),
        band(SHORT, -1.0, 1.01, 0.03),
    ),
)
ALL_STORED = frozenset({5, 15})

CASES = {
    "a near-duplicate resumes very late": (Neighbourhood(0.97, ALL_STORED), Limits(0.1), SKIP15, "SimilarCached"),
    "a similar prompt skips a little": (Neighbourhood(0.8, ALL_STORED), Limits(0.1), SKIP5, "SimilarCached"),
    "a far neighbour is no help": (Neighbourhood(0.3, ALL_STORED), Limits(0.1), EXACT, "NothingHarmless"),
    "nothing cached": (NOWHERE, Limits(0.1), EXACT, "NoNeighbour"),
    "the latent is not stored": (Neighbourhood(0.97, frozenset({5})), Limits(0.1), SKIP5, "SimilarCached"),
    "exact on request": (Neighbourhood(0.97, ALL_STORED), Limits(0.1, exact=True), EXACT, "ExactRequested"),
    "capped by the request": (
        Neighbourhood(0.97, ALL_STORED),
        Limits(0.1, max_skipped_steps=5),
        SKIP5,
        "SimilarCached",
    ),
    "drawn as nobody measured": (Neighbourhood(0.97, ALL_STORED), Limits(0.1, measured=False), EXACT, "Unmeasured"),
    "schedule on request": (
        Neighbourhood(0.97, ALL_STORED),
        Limits(0.1, fixed_steps=7),
        Level(0, 7),
        "ScheduleRequested",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_wanted_level_by_similarity(case: str) -> None:
    """Each sentence is one row of the rule."""
    near, limits, level, reason = CASES[case]
    options = eligible_options(LADDER, PROFILE, near, limits)
    wanted = choose_wanted_level(LADDER, options, near, limits)
    assert (wanted.level, wanted.reason) == (level, reason)


def test_short_schedule_wanted_once_harmless() -> None:
    """With a profile where few steps lose nothing, the cache is not preferred: measured loss decides."""
    losses = (*PROFILE.losses[:-1], band(SHORT, -1.0, 1.01, 0.0))
    profile = LevelProfile("d", "t", BASE, PROFILE.step_s, PROFILE.fixed_s, losses)
    near = Neighbourhood(0.8, ALL_STORED)
    options = eligible_options(LADDER, profile, near, Limits(0.1))
    wanted = choose_wanted_level(LADDER, options, near, Limits(0.1))
    assert (wanted.level, wanted.reason) == (SHORT, WantedReason.SHORT_SCHEDULE)


def test_unmeasured_level_never_offered() -> None:
    """A level that the profile does not know has no promise to keep."""
    profile = LevelProfile("d", "t", BASE, (0.02,), 0.0, losses=())
    options = eligible_options(LADDER, profile, Neighbourhood(0.99, ALL_STORED), Limits(0.5))
    assert [option.level for option in options] == [EXACT]


@given(
    similarity=st.none() | st.floats(-1, 1),
    stored=st.frozensets(st.sampled_from([5, 15])),
    max_loss=st.floats(0, 1),
    cap=st.none() | st.integers(0, 20),
)
def test_options_keep_every_promise(
    similarity: float | None, stored: frozenset[int], max_loss: float, cap: int | None
) -> None:
    """No option above the floor, the cap or what is stored, whatever the request; exact is always among them."""
    limits = Limits(max_loss, max_skipped_steps=cap)
    options = eligible_options(LADDER, PROFILE, Neighbourhood(similarity, stored), limits)
    assert EXACT in [option.level for option in options]
    for option in options:
        assert option.expected_loss <= max_loss
        if option.level.needs_latent:
            assert similarity is not None
            assert option.level.skipped_steps in stored
            assert cap is None or option.level.skipped_steps <= cap


def test_profile_round_trips() -> None:
    """What `t2ictl profile` writes is what the gateway reads."""
    assert parse_profile(render_profile(PROFILE)) == PROFILE


LADDER_FAULTS = {
    "the exact level is missing": ([SKIP5], "must contain the exact one"),
    "a level twice": ([EXACT, SKIP5, SKIP5], "more than once"),
    "longer than the model's schedule": ([EXACT, Level(0, 30)], "runs longer"),
    "a skip of a short schedule": ([EXACT, Level(2, 8)], "cached latents belong to the full schedule"),
}


@pytest.mark.parametrize("fault", LADDER_FAULTS)
def test_bad_ladder_names_fault(fault: str) -> None:
    """A pool's owner reads what to change."""
    levels, message = LADDER_FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        build_ladder(BASE, levels)


def test_ladder_orders_by_cost() -> None:
    """Exact first, then ever cheaper."""
    ladder: Ladder = build_ladder(BASE, [SKIP15, SHORT, EXACT, SKIP5])
    assert [level.steps_run for level in ladder.levels] == [20, 15, 8, 5]
    assert ladder.skips == (5, 15)
