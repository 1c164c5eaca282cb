"""The bound: never worse than any way of serving that the pool could do, and reached where that is easy."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile
from t2i_simulator.bound import SLOT_S, Choice, TracedRequest, cost_of, lower_hull, solve_bounds
from t2i_simulator.workers import Group

NEAR = (Choice(50, 0.0), Choice(25, 0.01))
FAR = (Choice(50, 0.0), Choice(25, 0.10))


def burst(near: int, far: int, at_s: float = 0.0) -> list[TracedRequest]:
    """So many of each kind at once."""
    return [TracedRequest(at_s, NEAR)] * near + [TracedRequest(at_s, FAR)] * far


def test_hull_leaves_out_what_two_others_beat() -> None:
    """K=20 loses more than a mix of its neighbours; a level that is dearer and no better goes too."""
    assert lower_hull([Choice(50, 0.0), Choice(40, 0.03), Choice(30, 0.5), Choice(20, 0.75)]) == (
        Choice(50, 0.0),
        Choice(40, 0.03),
        Choice(20, 0.75),
    )
    assert lower_hull([Choice(50, 0.0), Choice(45, 0.0), Choice(20, 0.05)]) == (Choice(45, 0.0), Choice(20, 0.05))


@pytest.mark.parametrize(
    ("steps_per_s", "quality"),
    [
        pytest.param(100.0, 100.0, id="room for all"),
        pytest.param(87.5, 100 - 0.25, id="half of the near ones skip"),
        pytest.param(62.5, 100 - 3.0, id="all near ones skip and half of the far ones"),
        pytest.param(40.0, None, id="no room: it cannot be done without dropping"),
    ],
)
def test_steps_are_saved_where_they_cost_least(steps_per_s: float, quality: float | None) -> None:
    """100 near and 100 far prompts at once, 10,000 steps if all are exact; 100 s of capacity until the deadline."""
    found = solve_bounds(burst(100, 100), steps_per_s, 100.0 - SLOT_S, 0).quality_percent
    assert found == (None if quality is None else pytest.approx(quality))


def test_dropping_is_paid_by_goodput_and_limited_by_violations() -> None:
    """Twice too much even if all skip: half is dropped. Allowed to drop no more than a quarter, it cannot be done."""
    found = solve_bounds(burst(100, 0), 12.5, 100.0 - SLOT_S, 50)
    assert (found.quality_percent, found.goodput_percent) == (pytest.approx(99.0), pytest.approx(49.5))
    assert solve_bounds(burst(100, 0), 12.5, 100.0 - SLOT_S, 25).quality_percent is None


def test_a_violation_is_spent_on_the_worst_prompt() -> None:
    """Room for 99 exact images and one short one of two kinds: without violations a near one skips, with one none."""
    asked = burst(50, 50)
    steps_per_s = (100 * 50 - 25) / 100
    assert solve_bounds(asked, steps_per_s, 95.0, 0).quality_percent == pytest.approx(100 - 0.01)
    assert solve_bounds(asked, steps_per_s, 95.0, 1).quality_percent == pytest.approx(100.0)


def test_a_tight_slo_makes_long_images_dearer() -> None:
    """Full batches step in 0.2 s: 50 steps in 8.4 s need smaller ones, which take 1.1 times the device time."""
    group = Group("gpu", 8, LevelProfile("m", "d", 50, (0.084, 0.1292, 0.168, 0.2036), 0.0, ()))
    assert cost_of(Level(0, 50), [group], 21.0) == pytest.approx(50)
    assert cost_of(Level(0, 50), [group], 8.4) == pytest.approx(50 * (0.168 / 3) / (0.2036 / 4))
    assert cost_of(Level(25, 50), [group], 8.4) == pytest.approx(25)
    assert cost_of(Level(0, 50), [group], 4.2) == pytest.approx(50 * 0.084 / (0.2036 / 4))


losses = st.floats(0.0, 0.3)
requests = st.lists(st.tuples(st.integers(0, 2), losses, losses), min_size=1, max_size=5).map(
    lambda items: [
        TracedRequest(SLOT_S * at, lower_hull([Choice(50, 0.0), Choice(30, one), Choice(10, two)]))
        for at, one, two in items
    ]
)


@settings(max_examples=60, deadline=None)
@given(asked=requests, steps_per_slot=st.floats(20.0, 150.0), slack_slots=st.floats(0.0, 1.0))
def test_no_way_of_serving_all_is_better(asked: list[TracedRequest], steps_per_slot: float, slack_slots: float) -> None:
    """Every choice of levels, and of whom to drop, that keeps the backlog within the SLO is within the bounds."""
    rate, start = steps_per_slot / SLOT_S, min(one.at_s for one in asked)
    bounds = [solve_bounds(asked, rate, slack_slots * SLOT_S, dropped) for dropped in range(len(asked))]
    for picks in itertools.product(*((*one.choices, None) for one in asked)):
        backlog, fits = 0.0, True
        for slot in range(3):
            here = [pick for pick, one in zip(picks, asked, strict=True) if (one.at_s - start) // SLOT_S == slot]
            backlog = max(0.0, backlog + sum(pick.cost for pick in here if pick) - steps_per_slot)
            fits = fits and backlog <= steps_per_slot * slack_slots + 1e-9
        served = [pick for pick in picks if pick]
        if fits and served:
            good = sum(1 - pick.loss for pick in served)
            known = bounds[len(asked) - len(served)]
            assert known.goodput_percent >= 100 * good / len(asked) - 1e-3
            assert known.quality_percent is not None
            assert known.quality_percent >= 100 * good / len(served) - 1e-3


def test_nonsense_is_refused() -> None:
    """Nothing asked, and a pool without steps."""
    for asked, rate in (([], 1.0), (burst(1, 0), 0.0)):
        with pytest.raises(ValueError, match="need requests"):
            solve_bounds(asked, rate, 1.0, 0)
