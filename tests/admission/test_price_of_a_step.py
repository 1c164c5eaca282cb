"""The price of a step: demand fits the pool at it, and every turn of the curve is best."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from small_pools import EXACT, K10, K25, MIX, RULES, SHORT25, SLO_S, asks, mix, pool_of, steady, worker
from t2i_policy.level import Level
from t2i_policy.planning.plan import Plan
from t2i_policy.planning.price_turns import PriceTurn, best_steps
from t2i_policy.policies import Course, PromptAware
from t2i_policy.pool_view import PoolView, WorkerView
from t2i_policy.request.admission import Refused, decide_admission
from t2i_policy.request.decide import build_rules
from t2i_policy.request.options import Option, WantedLevel, WantedReason
from t2i_policy.request.price import (
    NO_DEMAND,
    REACH_S,
    SLACK_SHARE,
    PriceCurve,
    demand_price,
    price_curve,
    slack_of,
)
from t2i_policy.request.served import LoadState, choose_served_level

SLACK_S = 10.0
CURVE_OF_A_BURST = price_curve(RULES.classes, mix(40.0))
CURVE = PriceCurve(2.0, (PriceTurn(0.0, 50.0), PriceTurn(0.001, 40.0), PriceTurn(0.004, 25.0)))
losses = st.dictionaries(
    st.builds(Level, st.integers(0, 9), st.just(10)) | st.builds(Level, st.just(0), st.integers(1, 10)),
    st.floats(0.0, 1.0),
    min_size=1,
)


def test_idle_pool_asks_nothing() -> None:
    """Without demand, and with demand that fits, a step is free."""
    assert demand_price(NO_DEMAND, pool_of(), SLACK_S) == 0.0
    assert demand_price(price_curve(RULES.classes, mix(0.1)), pool_of(), SLACK_S) == 0.0
    assert price_curve(RULES.classes, {}) == NO_DEMAND


def test_price_is_the_least_at_which_demand_fits() -> None:
    """At a rate of 2/s the pool has steps for 40 an image, as soon as the backlog stands where it should."""
    pool = steady_pool(80.0)
    assert demand_price(CURVE, pool, SLACK_S) == pytest.approx(0.001)
    assert demand_price(PriceCurve(1.5, CURVE.turns), pool, SLACK_S) == 0.0
    assert demand_price(PriceCurve(9.0, CURVE.turns), pool, SLACK_S) == pytest.approx(0.004)  # never fits


def steady_pool(steps_per_s: float, backlog_s: float = SLACK_SHARE * SLACK_S) -> PoolView:
    """A pool that makes about so many steps, with this backlog."""
    one = worker("a", 4, steps_left=0)
    workers = tuple(worker(f"w{n}", 4, steps_left=0) for n in range(round(steps_per_s / one.steps_per_s)))
    rate = sum(view.steps_per_s for view in workers)
    return PoolView(workers, 1, round(backlog_s * rate))


def test_empty_queue_lets_more_through_than_a_full_one() -> None:
    """The price steers the backlog to its share of the slack, within the reach."""
    prices = [demand_price(CURVE, steady_pool(80.0, backlog_s), SLACK_S) for backlog_s in (0.0, 5.0, 9.0)]
    assert prices == sorted(prices)
    assert prices[0] < prices[-1]
    assert REACH_S > 0


@pytest.mark.parametrize("gateways", [1, 2, 4])
def test_gateways_that_share_demand_find_the_same_price(gateways: int) -> None:
    """Each sees its part of the demand and of the queue, and takes the others to see as much."""
    whole = steady_pool(80.0)
    part = PoolView(whole.workers, 1, round(whole.queued_steps / gateways), gateways=gateways)
    seen = steady({name: rate / gateways for name, rate in mix(2.0).items()})
    curve = price_curve(RULES.classes, seen.times(gateways).rates_rps(1000.0))
    assert demand_price(curve, part, SLACK_S) == pytest.approx(
        demand_price(price_curve(RULES.classes, mix(2.0)), whole, SLACK_S)
    )


@given(losses=losses, price=st.floats(0.0, 2.0))
def test_curve_tells_what_is_best_at_a_price(losses: dict[Level, float], price: float) -> None:
    """The level that the curve counts on costs no more than any other."""
    steps = [run for turn, run in best_steps(losses) if turn <= price][-1]
    least = min(loss + price * level.steps_run for level, loss in losses.items())
    counted = min(loss + price * level.steps_run for level, loss in losses.items() if level.steps_run == steps)
    assert counted == pytest.approx(least, abs=1e-9)


@given(total_rps=st.floats(0.01, 50.0))
def test_mean_steps_fall_as_the_price_rises(total_rps: float) -> None:
    """From all prompts at their wanted level down to the cheapest they may have."""
    curve = price_curve(RULES.classes, mix(total_rps))
    prices, steps = zip(*curve.turns, strict=True)
    assert list(prices) == sorted(set(prices))
    assert list(steps) == sorted(steps, reverse=True)
    assert prices[0] == 0.0
    assert steps[0] <= EXACT.steps_run
    assert steps[-1] >= min(K25.steps_run, SHORT25.steps_run) - 1e-9


def test_slack_is_what_an_exact_image_leaves() -> None:
    """And never nothing, so that pressure stays a number."""
    assert slack_of(20.0, 4.0) == 16.0
    assert slack_of(20.0, 40.0) == slack_of(20.0, float("inf")) == 1.0


def test_whoever_is_indifferent_at_the_price_takes_fewer_steps() -> None:
    """The curve counts on them, so a demand that just fits must not run the steps above the turn."""
    for total_rps in (0.6, 1.0, 1.5, 2.0, 2.5, 3.0):
        curve = price_curve(RULES.classes, mix(total_rps))
        price = demand_price(curve, steady_pool(80.0), SLACK_S)
        served = sum(share * _steps_at(name, price) for name, share in MIX.items())
        assert served == pytest.approx([steps for turn, steps in curve.turns if turn <= price][-1])


def _steps_at(prompt_class: str, price: float) -> int:
    """Of the level that a request of this class gets."""
    losses = RULES.classes.losses[prompt_class]
    options = tuple(
        sorted((Option(level, loss) for level, loss in losses.items()), key=lambda one: one.level.steps_run)
    )
    wanted = min(options, key=lambda one: (one.expected_loss, one.level.steps_run))
    start = WantedLevel(wanted.level, wanted.expected_loss, WantedReason.SIMILAR_CACHED)
    return choose_served_level(start, options, pool_of(), LoadState(1e6, price)).level.steps_run


def test_fixed_mix_pays_for_a_backlog_only() -> None:
    """Its owner chose the levels: demand that its workers cannot carry shows as a queue first."""
    course = Course(Plan(shift_map={name: {K10: 1.0} for name in MIX}, binds=True), CURVE_OF_A_BURST)
    idle, full = pool_of(), pool_of(running=4, queued=1000)
    assert PromptAware().serve(RULES, Course(prices=course.prices), asks(0.65), idle).served.reason == "Load"
    assert PromptAware().serve(RULES, course, asks(0.65), idle).served.reason == "Planned"
    assert PromptAware().serve(RULES, course, asks(0.65), full).served.reason == "Load"


@pytest.mark.parametrize("step_s", [(0.1,), ()])
@pytest.mark.parametrize("cap", [0, 4])
def test_pool_that_can_run_nothing_decides_all_the_same(cap: int, step_s: tuple[float, ...]) -> None:
    """No worker is ready, or the only one that says so has no places: admission refuses, nothing divides by zero."""
    view = PoolView((WorkerView("a", cap == 0, 0, 0, cap, step_s, 0.0, 0),), 0, 0)
    decided = PromptAware().serve(RULES, Course(prices=CURVE_OF_A_BURST), asks(0.65), view)
    assert isinstance(decide_admission(view, decided.served, SLO_S, 10), Refused)


def test_profile_without_losses_serves_everything_exactly() -> None:
    """Nothing was measured, so nothing may be approximated at any price."""
    profile = replace(RULES.profile, losses=())
    rules = build_rules(RULES.ladder, profile, SLO_S, 0.2)
    course = Course(prices=price_curve(rules.classes, {"none": 40.0, "exact": 1.0, "a class of another profile": 1.0}))
    assert [steps for _, steps in course.prices.turns] == pytest.approx([EXACT.steps_run])
    assert PromptAware().serve(rules, course, asks(0.9), pool_of(running=4, queued=1000)).served.level == EXACT
