"""Demand: smoothed counts that show a burst and do not freeze when traffic stops."""

import pytest

from t2i_policy.planning.demand import Demand

EXACT, SKIP = "none", "0.90"


def test_steady_rate_is_read_back() -> None:
    """Two requests a second for five half-lives read about 2/s."""
    demand = Demand(half_life_s=10)
    for index in range(100):
        demand = demand.counted(EXACT if index % 4 else SKIP, now_s=index / 2)
    assert demand.rate_rps(50.0) == pytest.approx(2.0, rel=0.07)
    assert demand.rates_rps(50.0)[SKIP] == pytest.approx(0.5, rel=0.1)


def test_silence_decays_by_clock_alone() -> None:
    """Nothing needs to arrive for the rate to fall: a stale estimate would freeze the plan."""
    demand = Demand(half_life_s=10).counted(EXACT, now_s=0.0)
    assert demand.rate_rps(100.0) < demand.rate_rps(0.0) / 1000


def test_late_clock_never_grows_counts() -> None:
    """A clock that steps back counts the request and decays nothing."""
    demand = Demand(half_life_s=10).counted(EXACT, now_s=100.0)
    twice = demand.counted(EXACT, now_s=50.0)
    assert twice.rate_rps(50.0) == twice.rate_rps(100.0) == pytest.approx(2 * demand.rate_rps(100.0))


def test_long_lives_read_as_short_ones() -> None:
    """A day of requests, one every 7 s: the rate is as exact at the end as at the start, and counts stay small."""
    demand = Demand(half_life_s=10)
    for index in range(12_000):
        demand = demand.counted(EXACT, now_s=7.0 * index)
    assert demand.rate_rps(7.0 * 12_000) == pytest.approx(1 / 7, rel=0.3)
    assert demand.counts[EXACT] < 2**20
    assert demand.as_of(9e4).rates_rps(9e4) == pytest.approx(demand.rates_rps(9e4))
