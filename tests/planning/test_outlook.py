"""Explain's outlook and the served choice follow one set of rules."""

from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_policy.level import Level, build_ladder
from t2i_policy.profile import BandLoss, LevelProfile
from t2i_policy.request.explain import outlook
from t2i_policy.request.options import NOWHERE, IneligibleReason, Limits, Neighbourhood, eligible_options

BASE = 20
LEVELS = [Level(0, BASE), Level(5, BASE), Level(10, BASE), Level(15, BASE), Level(0, 10), Level(0, 5)]
LADDER = build_ladder(BASE, LEVELS)

losses = st.floats(-0.05, 1.0)
profiles = st.lists(st.tuples(st.sampled_from(LEVELS[1:]), losses, losses), unique_by=lambda item: item[0]).map(
    lambda measured: LevelProfile(
        "digest",
        "test",
        BASE,
        (0.01,),
        0.0,
        tuple(
            band
            for level, low, high in measured
            for band in (BandLoss(level, -1.0, 0.8, low, 0.01, 20), BandLoss(level, 0.8, 1.01, high, 0.01, 20))
        ),
    )
)
neighbourhoods = st.just(NOWHERE) | st.builds(
    Neighbourhood, st.floats(-1.0, 1.0), st.frozensets(st.sampled_from([5, 10, 15]), min_size=1)
)
limits = st.builds(
    Limits,
    st.floats(0.0, 1.0),
    max_skipped_steps=st.none() | st.integers(0, BASE),
    exact=st.booleans(),
    fixed_steps=st.none() | st.integers(1, BASE),
)


@settings(max_examples=300, deadline=None)
@given(profile=profiles, near=neighbourhoods, limit=limits)
def test_outlook_agrees_with_what_may_be_served(profile: LevelProfile, near: Neighbourhood, limit: Limits) -> None:
    """A level is called eligible exactly when it is among the options, whatever was measured, stored and asked for."""
    told = {entry.level for entry in outlook(LADDER, profile, near, limit) if entry.eligible}
    served = {option.level for option in eligible_options(LADDER, profile, near, limit)}
    assert told == served


def test_each_ineligible_level_says_why() -> None:
    """One reason each, the one a user can act on."""
    profile = LevelProfile(
        "d", "t", BASE, (0.01,), 0.0, tuple(BandLoss(one, -1.0, 1.01, 0.3, 0.0, 20) for one in LEVELS[1:5])
    )
    near = Neighbourhood(0.9, frozenset({5, 10}))
    told = {one.level: one.reason for one in outlook(LADDER, profile, near, Limits(0.2, max_skipped_steps=5))}
    assert told == {
        Level(0, BASE): IneligibleReason.NONE,
        Level(5, BASE): IneligibleReason.BELOW_QUALITY_FLOOR,
        Level(10, BASE): IneligibleReason.ABOVE_REQUEST_CAP,
        Level(15, BASE): IneligibleReason.LATENT_NOT_STORED,
        Level(0, 10): IneligibleReason.BELOW_QUALITY_FLOOR,
        Level(0, 5): IneligibleReason.NOT_MEASURED,
    }
