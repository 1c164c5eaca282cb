"""The oracle: prices that clear a known future, never dearer than any way of serving it that the pool could do."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_pools import EXACT, K10, K25, RULES, SHORT40, asks, pool_of, seen
from t2i_policy.policies import Course
from t2i_policy.request.options import Option
from t2i_simulator.rivals.clearing import SHED_PRICE, Choices, OracleKnowledge, TracedRequest, clear, saving_segments
from t2i_simulator.rivals.oracle import Oracle, option_at_price

NEAR: Choices = ((50, 0.0), (25, 0.01))  # 0.0004 a step
FAR: Choices = ((50, 0.0), (25, 0.10))  # 0.004 a step
ONLY_EXACT: Choices = ((50, 0.0),)


def burst(near: int, far: int, at_s: float = 0.0) -> list[TracedRequest]:
    """So many of each kind at once."""
    return [TracedRequest(at_s, NEAR)] * near + [TracedRequest(at_s, FAR)] * far


def test_segments_are_the_lower_hull() -> None:
    """A level that two others beat between them is never worth taking."""
    assert saving_segments(((50, 0.0), (40, 0.03), (30, 0.5), (20, 0.75))) == [(0.003, 10), (0.036, 20)]
    assert saving_segments(((50, 0.0), (45, 0.0), (20, 0.05))) == [(0.002, 25)]
    assert saving_segments(ONLY_EXACT) == []


@pytest.mark.parametrize(
    ("steps_per_s", "price", "share"),
    [
        pytest.param(100.0, 0.0, 0.0, id="room for all: a step is free"),
        pytest.param(87.5, 0.0004, 0.5, id="half of the near ones skip"),
        pytest.param(62.5, 0.004, 0.5, id="all near ones skip and half of the far ones"),
    ],
)
def test_price_clears_the_window(steps_per_s: float, price: float, share: float) -> None:
    """100 near and 100 far prompts in 100 s, 10,000 steps if all are exact."""
    known = clear(burst(100, 100), steps_per_s, 0.0, 100.0)
    assert known.at(50.0) == pytest.approx((price, share))
    assert known.shed_fraction == 0.0


def test_what_cannot_be_served_is_shed_at_the_top_price() -> None:
    """All skip half and it is still twice too much."""
    known = clear(burst(50, 50), 12.5, 0.0, 100.0)
    assert known.prices == (SHED_PRICE,)
    assert known.shed_fraction == pytest.approx(0.25)  # 1,250 steps of the 5,000 that nobody's least loss takes


def test_slack_carries_work_over_a_burst() -> None:
    """With time to wait the same burst loses less, and it is paid for in the quiet window behind it."""
    future = [*burst(100, 0, 0.0), *burst(10, 0, 100.0)]
    tight, loose = (clear(future, 40.0, slack_s, 100.0) for slack_s in (0.0, 15.0))
    assert tight.mean_loss == pytest.approx(1000 * 0.0004 / 110)
    assert loose.mean_loss == pytest.approx(400 * 0.0004 / 110)


def test_price_rises_before_a_burst_that_the_slack_leads_into() -> None:
    """A backlog that would meet a burst is worked off beforehand where that costs less: only foresight does that."""
    calm = clear([*burst(85, 0, 0.0), *[TracedRequest(100.0, ONLY_EXACT)] * 80], 40.0, 10.0, 100.0)
    assert (calm.prices[0], calm.shed_fraction) == (0.0, 0.0)
    # 250 steps stay over from the first window, 200 from the second: 50 more than the slack's 400
    ahead = clear([*burst(85, 0, 0.0), *[TracedRequest(100.0, ONLY_EXACT)] * 84], 40.0, 10.0, 100.0)
    assert ahead.prices[0] == pytest.approx(0.0004)
    assert ahead.mean_loss == pytest.approx(50 * 0.0004 / 169)


def test_outside_the_known_future_a_step_is_free() -> None:
    """Before and after; and with nothing known at all."""
    known = OracleKnowledge(100.0, 10.0, (0.1,), (0.5,), 0.0, 0.0)
    assert [known.at(now_s) for now_s in (99.0, 105.0, 110.0)] == [(0.0, 0.0), (0.1, 0.5), (0.0, 0.0)]
    assert clear([], 1.0, 0.0, 1.0).at(0.0) == (0.0, 0.0)


@pytest.mark.parametrize(("steps_per_s", "slack_s", "window_s"), [(0, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_nonsense_is_refused(steps_per_s: float, slack_s: float, window_s: float) -> None:
    """A pool without steps, negative slack, windows without length."""
    with pytest.raises(ValueError, match="need steps_per_s"):
        clear(burst(1, 1), steps_per_s, slack_s, window_s)


losses = st.floats(0.0, 0.3)
requests = st.lists(st.tuples(st.integers(0, 2), losses, losses), min_size=1, max_size=5).map(
    lambda items: [TracedRequest(float(at), ((50, 0.0), (30, one), (10, two))) for at, one, two in items]
)


@settings(max_examples=100, deadline=None)
@given(future=requests, steps_per_s=st.floats(20.0, 150.0), slack_s=st.floats(0.0, 1.0))
def test_no_way_of_serving_all_loses_less(future: list[TracedRequest], steps_per_s: float, slack_s: float) -> None:
    """Every choice of levels that keeps the backlog within the slack loses at least the bound."""
    known = clear(future, steps_per_s, slack_s, 1.0)
    start = min(one.at_s for one in future)
    best = float("inf")
    for picks in itertools.product(*(one.choices for one in future)):
        backlog, fits = 0.0, True
        for window in range(3):
            arrived = sum(pick[0] for pick, one in zip(picks, future, strict=True) if one.at_s - start == window)
            backlog = max(0.0, backlog + arrived - steps_per_s)
            fits = fits and backlog <= steps_per_s * slack_s + 1e-9
        if fits:
            best = min(best, sum(loss for _, loss in picks) / len(future))
    if best < float("inf"):
        assert known.shed_fraction == pytest.approx(0.0, abs=1e-9)
        assert known.mean_loss <= best + 1e-5  # the solver's tolerance: 1e-7 a step


def test_ties_at_the_price_are_split_by_the_draw() -> None:
    """At exactly the slope between two levels the cheaper one goes to the share that clears the window."""
    options = (Option(K25, 0.01), Option(EXACT, 0.0))
    assert option_at_price(options, 0.0004, 0.25, draw=0.2).level == K25
    assert option_at_price(options, 0.0004, 0.25, draw=0.3).level == EXACT
    assert option_at_price(options, 0.0005, 0.0, draw=0.9).level == K25
    assert option_at_price(options, 0.0003, 1.0, draw=0.0).level == EXACT


def test_oracle_serves_by_the_price_of_its_window() -> None:
    """Free steps: no loss. A small price: near-duplicates skip. A large one: everybody does, strangers run shorter."""
    known = OracleKnowledge(1000.0, 100.0, (0.0, 0.001, 0.0025), (0.0, 0.0, 0.0), 0.0, 0.0)
    policy = Oracle(known, RULES.profile)
    served = []
    for now_s in (1050.0, 1150.0, 1250.0):
        course = policy.replan(RULES, Course(), seen({}, now_s=now_s))
        served.append([policy.serve(RULES, course, asks(at), pool_of()).served.level for at in (0.97, 0.3)])
    assert served == [[EXACT, EXACT], [K25, EXACT], [K25, SHORT40]]
    assert policy.serve(RULES, Course(), asks(0.97), pool_of()).served.level == EXACT
    assert policy.place(K10, pool_of(), 20.0, frozenset()) is not None
