"""Baselines that plan nothing: what they serve depends on the prompt, the draw, or on nothing at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from small_pools import (
    ANYTHING,
    EXACT,
    K5,
    K10,
    K15,
    K20,
    K25,
    RULES,
    SHORT25,
    SHORT40,
    STORED,
    asks,
    pool_of,
)
from t2i_policy.level import Level, build_ladder
from t2i_policy.planning.plan import NO_PLAN
from t2i_policy.policies import ServingPolicy
from t2i_policy.pool_view import PoolView
from t2i_policy.request.options import Limits, Neighbourhood
from t2i_simulator.rivals.common import Strength, runnable_option
from t2i_simulator.rivals.fixed_level import ClipperHighAccuracy, ClipperHighThroughput
from t2i_simulator.rivals.nirvana import MeasuredThresholds, Nirvana, level_by_similarity

similarities = st.one_of(st.none(), st.floats(-1.0, 1.0))
MEASURED = MeasuredThresholds(0.01, "nirvana")
pools = st.builds(pool_of, st.integers(1, 8), st.integers(0, 4), st.integers(0, 500))


def served(policy: ServingPolicy, similarity: float | None, pool: PoolView | None = None, draw: float = 0.5) -> Level:
    """The level that a policy without a plan serves."""
    return policy.serve(RULES, NO_PLAN, asks(similarity, draw), pool or pool_of()).served.level


@given(similarity=similarities, pool=pools)
def test_clipper_ha_is_always_exact(similarity: float | None, pool: PoolView) -> None:
    """Whatever the prompt and the load."""
    assert served(ClipperHighAccuracy(), similarity, pool) == EXACT


@given(similarity=st.floats(-1.0, 1.0), pool=pools)
def test_clipper_ht_is_always_cheapest(similarity: float, pool: PoolView) -> None:
    """From the nearest latent, however far it is; the papers' ladder, so no short schedule."""
    assert served(ClipperHighThroughput(), similarity, pool) == K25


def test_clipper_ht_runs_exact_from_an_empty_cache() -> None:
    """There is no latent to start from."""
    assert served(ClipperHighThroughput(), None) == EXACT


def test_clipper_ht_says_what_it_loses() -> None:
    """A far neighbour costs what was measured, though no floor holds it back."""
    decided = ClipperHighThroughput().serve(RULES, NO_PLAN, asks(0.1), pool_of())
    assert decided.served.expected_loss == pytest.approx(2.0 * 0.085)


@pytest.mark.parametrize(
    ("similarity", "level"),
    [
        (None, EXACT), (0.3, EXACT), (0.65, EXACT), (0.66, K5), (0.75, K5), (0.76, K10), (0.85, K10), (0.86, K15),
        (0.90, K15), (0.91, K20), (0.95, K20), (0.96, K25), (1.0, K25),
    ],
)  # fmt: skip
def test_nirvana_follows_its_table(similarity: float | None, level: Level) -> None:
    """The published thresholds, each exclusive."""
    assert served(Nirvana(), similarity) == level


@given(similarity=similarities, pool=pools)
def test_nirvana_never_reacts_to_load(similarity: float | None, pool: PoolView) -> None:
    """Idle or drowning: the same level."""
    for policy in (Nirvana(), MEASURED):
        assert served(policy, similarity, pool) == served(policy, similarity)


def test_nirvana_table_scales_to_other_schedules() -> None:
    """Thresholds are for shares of the schedule: half of 12 steps is 6."""
    ladder = build_ladder(12, [Level(k, 12) for k in (0, 3, 6, 9)] + [Level(0, 6)])
    levels = [level_by_similarity(ladder, similarity) for similarity in (0.6, 0.8, 0.87, 0.97)]
    assert levels == [Level(0, 12), Level(0, 12), Level(3, 12), Level(6, 12)]


@pytest.mark.parametrize(("similarity", "level"), [(0.80, EXACT), (0.92, K5), (0.97, K25)])
def test_measured_thresholds_use_measured_losses(similarity: float, level: Level) -> None:
    """At 0.92 a K=10 loses 1.26 %, more than is harmless, where the published table would skip 20."""
    assert served(MEASURED, similarity) == level
    assert served(MeasuredThresholds(0.02, "nirvana"), None) == SHORT40


@pytest.mark.parametrize(
    ("level", "stored", "limits", "run"),
    [
        pytest.param(K20, STORED, ANYTHING, K20, id="as asked"),
        pytest.param(K20, {5, 15, 25}, ANYTHING, K15, id="a hole: the largest stored below"),
        pytest.param(K20, {25}, ANYTHING, EXACT, id="only larger ones stored"),
        pytest.param(K20, set(), ANYTHING, EXACT, id="nothing stored"),
        pytest.param(K20, STORED, Limits(1.0, max_skipped_steps=12), K10, id="the request's cap"),
        pytest.param(K20, STORED, Limits(1.0, exact=True), EXACT, id="exact asked for"),
        pytest.param(K20, STORED, Limits(1.0, fixed_steps=30), Level(0, 30), id="a schedule of its own"),
        pytest.param(SHORT25, set(), ANYTHING, SHORT25, id="a short schedule needs no latent"),
        pytest.param(SHORT40, STORED, Limits(1.0, exact=True), EXACT, id="exact, not short"),
        pytest.param(Level(0, 33), STORED, ANYTHING, EXACT, id="never measured"),
    ],
)
def test_fallback(level: Level, stored: set[int], limits: Limits, run: Level) -> None:
    """What is run where a level is asked for; its loss is the measured one."""
    near = Neighbourhood(0.8, frozenset(stored))
    option = runnable_option(RULES, level, near, limits)
    assert option.level == run
    if run in RULES.ladder.levels:
        assert option.expected_loss == RULES.profile.expected_loss(run, 0.8)


@pytest.mark.parametrize(
    ("budget", "similarity", "run"),
    [
        pytest.param(K10, 0.8, SHORT40, id="a short schedule that loses less at the same cost"),
        pytest.param(K10, 0.97, K10, id="a near neighbour: the skip loses less"),
        pytest.param(K20, None, SHORT25, id="nothing stored: no dearer than the budget"),
    ],
)
def test_a_budget_of_steps_runs_what_loses_least(budget: Level, similarity: float | None, run: Level) -> None:
    """With the whole ladder a rival's level is a budget."""
    near = asks(similarity).near
    assert runnable_option(RULES, budget, near, ANYTHING, Strength(whole_ladder=True)).level == run
