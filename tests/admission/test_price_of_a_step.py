"""The price of a step: demand fits the pool at it, and every turn of the curve is best."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from small_pools import EXACT, K25, RULES, SHORT25, mix, pool_of, steady, worker
from t2i_policy.level import Level
from t2i_policy.pool_view import PoolView
from t2i_policy.request.price import (
    NO_DEMAND,
    REACH_S,
    SLACK_SHARE,
    PriceCurve,
    best_steps,
    demand_price,
    price_curve,
    slack_of,
)

SLACK_S = 10.0
CURVE = PriceCurve(2.0, ((0.0, 50.0), (0.001, 40.0), (0.004, 25.0)))
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
    assert demand_price(PriceCurve(1.5, CURVE.steps_from), pool, SLACK_S) == 0.0
    assert demand_price(PriceCurve(9.0, CURVE.steps_from), pool, SLACK_S) == pytest.approx(0.004)  # never fits


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
    prices, steps = zip(*curve.steps_from, strict=True)
    assert list(prices) == sorted(set(prices))
    assert list(steps) == sorted(steps, reverse=True)
    assert prices[0] == 0.0
    assert steps[0] <= EXACT.steps_run
    assert steps[-1] >= min(K25.steps_run, SHORT25.steps_run) - 1e-9


def test_slack_is_what_an_exact_image_leaves() -> None:
    """And never nothing, so that pressure stays a number."""
    assert slack_of(20.0, 4.0) == 16.0
    assert slack_of(20.0, 40.0) == slack_of(20.0, float("inf")) == 1.0
