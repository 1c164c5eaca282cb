"""The learned predictor: monotone in similarity, silent where nothing was measured, explained by its own sum."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_policy.features import PromptFeatures, read_prompt
from t2i_policy.level import Level, build_ladder
from t2i_policy.planning.classes import build_classes
from t2i_policy.predictor import SIMILARITY, CurvePoint, LevelPredictor, Predictor, Term
from t2i_policy.profile import BandLoss, LevelProfile, ProfileError
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_policy.request.explain import outlook
from t2i_policy.request.options import (
    Limits,
    Neighbourhood,
    choose_wanted_level,
    eligible_options,
)

BASE = 20
EXACT, SKIP, SHORT = Level(0, BASE), Level(10, BASE), Level(0, 8)
LADDER = build_ladder(BASE, [EXACT, SKIP, SHORT])
CURVE = (CurvePoint(0.4, 0.5, 0.05), CurvePoint(0.8, 0.1, 0.03), CurvePoint(1.0, 0.0, 0.01))
LONG = Term("words", mean=3.0, low=2.0, high=5.0, weight=0.02, margin=0.01)
PREDICTOR = Predictor(
    (
        LevelPredictor(SKIP, CURVE, (LONG,), 400),
        LevelPredictor(SHORT, (CurvePoint(-1.0, 0.03, 0.005),), (LONG,), 400),
    )
)
BANDS = tuple(BandLoss(level, -1.0, 1.01, 0.3, 0.0, 50, 0.0) for level in (SKIP, SHORT))
PROFILE = LevelProfile("digest", "test", BASE, (0.01,), 0.0, BANDS, PREDICTOR)
STORED = frozenset({10})


def features(words: float) -> PromptFeatures:
    return PromptFeatures(words, 0.0, 0.0, 0.0)


def test_prediction_is_the_sum_of_what_it_tells() -> None:
    """A promise can be explained: every feature's part, and they add up; halfway between points is halfway."""
    predictor = PREDICTOR.of(SKIP)
    assert predictor is not None
    told = predictor.predict(0.9, features(4.0))
    assert told is not None
    assert [(part.feature, pytest.approx(part.loss), pytest.approx(part.margin)) for part in told.contributions] == [
        (SIMILARITY, 0.05, 0.02),
        ("words", 0.02, 0.01),
    ]
    assert told.expected_loss == pytest.approx(0.07)
    assert told.bound(1.0) == pytest.approx(0.10)
    assert told.sentence() == "7.0% ± 3.0% = similarity 5.0% ± 2.0%, words +2.0% ± 1.0%"


SILENCES = {
    "no neighbour": (SKIP, None, None),
    "less similar than all measured": (SKIP, 0.39, None),
    "a schedule needs no neighbour": (SHORT, None, 0.035),
    "more similar than all measured": (SKIP, 1.0, 0.01),
}


@pytest.mark.parametrize("case", SILENCES)
def test_says_nothing_where_nothing_was_measured(case: str) -> None:
    """A promise below the measured range would be a guess."""
    level, similarity, bound = SILENCES[case]
    assert PROFILE.expected_loss(level, similarity) == (None if bound is None else pytest.approx(bound))


def test_odd_prompts_are_taken_for_the_oddest_measured() -> None:
    """A term never reaches beyond the range it was fitted in; an unknown prompt is an average one."""
    longest, beyond = (PROFILE.expected_loss(SHORT, None, 1.0, features(words)) for words in (5.0, 12.0))
    assert longest == beyond == pytest.approx(0.03 + 0.005 + 2 * 0.03)
    assert PROFILE.expected_loss(SHORT, None) == PROFILE.expected_loss(SHORT, None, 1.0, features(3.0))


curves = st.lists(
    st.tuples(st.floats(0.01, 0.3), st.floats(0.0, 0.3), st.floats(0.0, 1.0)), min_size=1, max_size=6
).map(
    # built from the right: similarity falls, loss and edge rise
    lambda steps: tuple(
        CurvePoint(
            1.0 - sum(one[0] for one in steps[: at + 1]),
            sum(one[1] for one in steps[: at + 1]),
            sum(one[2] for one in steps[: at + 1]) * 0.1,
        )
        for at in range(len(steps))
    )[::-1]
)


@given(curve=curves, one=st.floats(-1, 1), other=st.floats(-1, 1), words=st.floats(0, 8), z=st.floats(0, 1))
def test_more_similar_never_promises_more_loss(
    curve: tuple[CurvePoint, ...], one: float, other: float, words: float, z: float
) -> None:
    """Expected loss and promise fall with similarity, whatever the prompt."""
    predictor = LevelPredictor(SKIP, curve, (LONG,), 100)
    far, near = (predictor.predict(similarity, features(words)) for similarity in sorted((one, other)))
    if far is not None:
        assert near is not None
        assert near.expected_loss <= far.expected_loss + 1e-9
        assert near.bound(z) <= far.bound(z) + 1e-9


def test_decisions_and_outlook_use_the_predictor() -> None:
    """The prompt's own features move its choice; bands say 30 % for everything and are not asked."""
    simple, hard = (Neighbourhood(1.0, STORED, features(words)) for words in (2.5, 5.0))
    limits = Limits(0.1)
    for near, level in ((simple, SKIP), (hard, EXACT)):
        options = eligible_options(LADDER, PROFILE, near, limits)
        assert choose_wanted_level(LADDER, options, near, limits, 0.02).level == level
        told = {entry.level: entry.expected_loss for entry in outlook(LADDER, PROFILE, near, limits)}
        assert {option.level: option.expected_loss for option in options}.items() <= told.items()


def test_outlook_says_what_a_loss_is_made_of() -> None:
    """The predictor's parts, or the band and its size; nothing where nothing is known."""
    near = Neighbourhood(0.9, STORED, features(4.0))
    told = {entry.level: entry.explanation for entry in outlook(LADDER, PROFILE, near, Limits(0.1))}
    assert told == {
        EXACT: "",
        SKIP: "7.0% ± 3.0% = similarity 5.0% ± 2.0%, words +2.0% ± 1.0%",
        SHORT: "5.0% ± 1.5% = schedule 3.0% ± 0.5%, words +2.0% ± 1.0%",
    }
    bands = LevelProfile("digest", "test", BASE, (0.01,), 0.0, BANDS)
    told = {entry.level: entry.explanation for entry in outlook(LADDER, bands, near, Limits(0.1))}
    assert told[SKIP] == "30.0% ± 0.0% in 50 prompts of similarity -1.00 to 1.00"
    assert told[SHORT] == "30.0% ± 0.0% in 50 prompts"
    assert PROFILE.explain(SKIP, 0.1) == ""


def test_planner_reads_a_class_at_its_middle() -> None:
    """A class stands for prompts from its lower to its upper edge, as far down as was measured."""
    bands = (BandLoss(SKIP, -1.0, 0.8, 0.3, 0.0, 50), BandLoss(SKIP, 0.8, 1.01, 0.3, 0.0, 50))
    profile = LevelProfile("digest", "test", BASE, (0.01,), 0.0, bands, PREDICTOR)
    losses = build_classes(LADDER, profile, 1.0).losses
    assert losses["-1.00"][SKIP] == pytest.approx(PROFILE.expected_loss(SKIP, 0.6))
    assert losses["0.80"][SKIP] == pytest.approx(PROFILE.expected_loss(SKIP, 0.9))
    assert SKIP not in losses["none"]


def test_levels_without_a_model_stay_with_their_bands() -> None:
    """A predictor of some levels takes nothing from the others."""
    profile = LevelProfile("digest", "test", BASE, (0.01,), 0.0, BANDS, Predictor(PREDICTOR.levels[:1]))
    assert profile.expected_loss(SHORT, None) == pytest.approx(0.3)


def test_section_round_trips_and_is_optional() -> None:
    """What is written is what is read; a profile of before has no section and works by its bands."""
    assert parse_profile(render_profile(PROFILE)) == PROFILE
    document = json.loads(render_profile(PROFILE))
    del document["predictor"]
    profile = parse_profile(json.dumps(document))
    assert profile.predictor is None
    assert profile.expected_loss(SKIP, 0.9) == pytest.approx(0.3)


def broken(path: str, value: Any) -> str:
    """The profile's JSON with one field of the first level changed, or left out for None."""
    document = json.loads(render_profile(PROFILE))
    at: Any = document["predictor"]["levels"][0]
    *way, last = path.split(".")
    for step in way:
        at = at[int(step) if step.isdecimal() else step]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return json.dumps(document)


FAULTS = {
    "a number is missing": ("curve.1.margin", None, r"levels\[0\]: margin is missing"),
    "no curve": ("curve", [], "curve: needs at least one point"),
    "text for a number": ("curve.0.loss", "much", "loss must be a finite number, got 'much'"),
    "not finite": ("curve.0.loss", 1e300, "loss must be a finite number"),
    "a rising curve": ("curve.2.loss", 0.9, "must not rise with similarity"),
    "points out of order": ("curve.1.similarity", 0.2, "similarity must rise from point to point"),
    "a negative margin": ("curve.2.margin", -0.1, "margin must not be negative"),
    "an unknown feature": ("terms.0.feature", "beauty", "feature must be one of words, clauses, numbers, relations"),
    "a level of no steps": ("numInferenceSteps", 0, "numInferenceSteps must be at least 1"),
    "no levels at all": ("terms", None, "terms is missing"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_section_names_its_field(fault: str) -> None:
    """A pool's owner reads what to mend, and that the section may be left out."""
    path, value, message = FAULTS[fault]
    with pytest.raises(ProfileError, match=message) as caught:
        parse_profile(broken(path, value))
    assert "leave it out" in str(caught.value)


PROMPTS = {
    "": (0, 0, 0, 0),
    "a castle": (2, 0, 0, 0),
    "two cats under a table, watercolour, 4k": (7, 2, 1, 1),
    "Zwei Katzen; ein Tisch": (4, 1, 0, 0),
    "an apple left of 3 pears | highly detailed": (8, 1, 1, 1),
}


@pytest.mark.parametrize("prompt", PROMPTS)
def test_features_of_a_prompt(prompt: str) -> None:
    """Words, parts, numbers above one and words of place, as log2(1 + n)."""
    read = read_prompt(prompt)
    counts = [round(2**value) - 1 for value in (read.words, read.clauses, read.numbers, read.relations)]
    assert counts == list(PROMPTS[prompt])
