"""The price of a step: nothing at rest, dearer as the backlog eats the slack, and spent where it hurts least."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from small_pools import EXACT, K10, MIX, RULES, SLO_S, asks, pool_of, worker
from t2i_policy.level import Level
from t2i_policy.planning.plan import NO_PLAN, Plan
from t2i_policy.policies import PromptAware
from t2i_policy.pool_view import PoolView, WorkerView
from t2i_policy.request.admission import Refused, decide_admission
from t2i_policy.request.decide import build_rules
from t2i_policy.request.options import Option, WantedLevel, WantedReason
from t2i_policy.request.price import HIGH_PRESSURE, LOW_PRESSURE, backlog_price, slack_of
from t2i_policy.request.served import LoadState, choose_served_level

losses = st.dictionaries(
    st.builds(Level, st.integers(0, 9), st.just(10)) | st.builds(Level, st.just(0), st.integers(1, 10)),
    st.floats(0.0, 1.0),
    min_size=1,
)


def test_idle_pool_asks_nothing() -> None:
    """Until the backlog has eaten some of the slack a step is free."""
    assert backlog_price(0.0, 0.2, 50) == backlog_price(LOW_PRESSURE, 0.2, 50) == 0.0
    assert PromptAware().serve(RULES, NO_PLAN, asks(0.65), pool_of()).served.reason == "AsWanted"


def test_first_of_the_backlog_costs_least() -> None:
    """A tenth of the way costs far less than a tenth of the price half way: levels that lose little come first."""
    tenth, half = (backlog_price(LOW_PRESSURE + at * (HIGH_PRESSURE - LOW_PRESSURE), 0.2, 50) for at in (0.1, 0.5))
    assert 0 < tenth < half / 10
    assert backlog_price(HIGH_PRESSURE, 0.2, 50) == float("inf")


@given(price=st.floats(0.0, 2.0), offered=losses)
def test_served_level_is_best_at_the_price(offered: dict[Level, float], price: float) -> None:
    """No allowed level of fewer steps than the wanted one costs less."""
    options = tuple(
        sorted((Option(level, loss) for level, loss in offered.items()), key=lambda one: one.level.steps_run)
    )
    wanted = min(options, key=lambda one: (one.expected_loss, one.level.steps_run))
    start = WantedLevel(wanted.level, wanted.expected_loss, WantedReason.SIMILAR_CACHED)
    served = choose_served_level(start, options, pool_of(), LoadState(1e6, price))
    least = min(one.expected_loss + price * one.level.steps_run for one in options)
    assert served.expected_loss + price * served.level.steps_run == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize("gateways", [1, 2, 4])
def test_gateways_that_share_a_backlog_ask_the_same_price(gateways: int) -> None:
    """Each sees its part of the queue, and takes the others to have as much."""
    workers = tuple(worker(f"w{n}", 4, steps_left=0) for n in range(2))
    seen = [PoolView(workers, 1, 800 // count, gateways=count) for count in (1, gateways)]
    whole, part = (PromptAware().serve(RULES, NO_PLAN, asks(0.65, left_s=100.0), view) for view in seen)
    assert whole.pressed == pytest.approx(part.pressed)
    assert whole.served.level == part.served.level
    assert whole.served.reason == "Load"


def test_slack_is_what_an_exact_image_leaves() -> None:
    """And never nothing, so that pressure stays a number."""
    assert slack_of(20.0, 4.0) == 16.0
    assert slack_of(20.0, 40.0) == slack_of(20.0, float("inf")) == 1.0


def test_fixed_mix_bends_under_a_backlog_only() -> None:
    """Its owner chose the levels: demand that its workers cannot carry shows as a queue first."""
    plan = Plan(shift_map={name: {K10: 1.0} for name in MIX}, binds=True)
    idle, full = pool_of(), pool_of(running=4, queued=1000)
    assert PromptAware().serve(RULES, plan, asks(0.65), idle).served.reason == "Planned"
    assert PromptAware().serve(RULES, plan, asks(0.65), full).served.reason == "Load"


@pytest.mark.parametrize("step_s", [(0.1,), ()])
@pytest.mark.parametrize("cap", [0, 4])
def test_pool_that_can_run_nothing_decides_all_the_same(cap: int, step_s: tuple[float, ...]) -> None:
    """No worker is ready, or the only one that says so has no places: admission refuses, nothing divides by zero."""
    view = PoolView((WorkerView("a", cap == 0, 0, 0, cap, step_s, 0.0, 0),), 0, 0)
    decided = PromptAware().serve(RULES, NO_PLAN, asks(0.65), view)
    assert isinstance(decide_admission(view, decided.served, SLO_S, 10), Refused)


def test_profile_without_losses_serves_everything_exactly() -> None:
    """Nothing was measured, so nothing may be approximated at any price."""
    rules = build_rules(RULES.ladder, replace(RULES.profile, losses=()), SLO_S, 0.2)
    served = PromptAware().serve(rules, NO_PLAN, asks(0.9), pool_of(running=4, queued=1000)).served
    assert served.level == EXACT
