"""The window of recent outcomes: what it counts, what it forgets, and that it stays bounded."""

import pytest

from t2i_gateway.playground.recent import MAX_OUTCOMES, WINDOW_S, RecentOutcome, RecentOutcomes
from t2i_policy.level import Level

EXACT, SKIPPED, SHORT = Level(0, 20), Level(10, 20), Level(0, 8)
LEVELS = (EXACT, SKIPPED, SHORT)


def recent(*outcomes: RecentOutcome) -> RecentOutcomes:
    """With these in it."""
    made = RecentOutcomes()
    for outcome in outcomes:
        made.add(outcome)
    return made


def test_an_empty_window_says_nothing() -> None:
    """No mean of nothing, no share of nothing."""
    told = RecentOutcomes().summary(100.0, LEVELS)
    assert (told.served, told.refused) == ((0, 0, 0), 0)
    assert (told.p95_s, told.mean_quality_percent, told.from_cache_fraction) == (None, None, None)
    assert len(told.seconds) == WINDOW_S


def test_what_was_served_and_refused_adds_up() -> None:
    """By level, with quality and the cache's share of what was served; refusals count beside it."""
    told = recent(
        RecentOutcome(99.5, EXACT, 1.0, 100.0),
        RecentOutcome(99.6, SKIPPED, 0.5, 96.0),
        RecentOutcome(99.7, SHORT, 0.3, 92.0),
        RecentOutcome(99.8, None),
    ).summary(100.0, LEVELS)
    assert (told.served, told.refused) == ((1, 1, 1), 1)
    assert told.mean_quality_percent == pytest.approx(96.0)
    assert told.from_cache_fraction == pytest.approx(1 / 3)
    assert told.p95_s == 1.0
    assert told.seconds[-1] == (1, 1, 1, 1)
    assert not any(any(counts) for counts in told.seconds[:-1])


def test_each_second_has_its_own_counts() -> None:
    """The oldest first: what ended half a minute ago stands in the middle."""
    told = recent(RecentOutcome(70.2, SHORT, 1.0, 90.0), RecentOutcome(99.9, EXACT, 1.0, 100.0)).summary(100.0, LEVELS)
    assert told.seconds[WINDOW_S - 30] == (0, 0, 1, 0)
    assert told.seconds[-1] == (1, 0, 0, 0)


def test_what_is_older_than_the_window_is_forgotten() -> None:
    """The page tells of the last minute."""
    window = recent(RecentOutcome(10.0, SHORT, 9.0, 50.0), RecentOutcome(60.0, EXACT, 1.0, 100.0))
    assert window.summary(69.0, LEVELS).served == (1, 0, 1)
    assert window.summary(70.0, LEVELS).served == (1, 0, 0)
    assert window.summary(70.0, LEVELS).p95_s == 1.0


def test_ninety_five_of_a_hundred_took_at_most() -> None:
    """The slowest five do not count."""
    window = recent(*(RecentOutcome(99.0, EXACT, float(took), 100.0) for took in range(1, 101)))
    assert window.summary(100.0, LEVELS).p95_s == 95.0


def test_the_window_is_bounded_in_number() -> None:
    """A fast pool's window is shorter, and says so."""
    window = recent(*(RecentOutcome(at * 0.001, EXACT, 1.0, 100.0) for at in range(2 * MAX_OUTCOMES)))
    told = window.summary(2 * MAX_OUTCOMES * 0.001, LEVELS)
    assert sum(told.served) == MAX_OUTCOMES
    assert told.window_s == pytest.approx(MAX_OUTCOMES * 0.001)


def test_a_level_that_the_pool_does_not_list_counts_as_the_next_dearer() -> None:
    """Requests may fix a schedule of their own."""
    told = recent(RecentOutcome(99.0, Level(0, 12), 1.0, 100.0), RecentOutcome(99.0, Level(0, 50), 1.0, 100.0))
    assert told.summary(100.0, LEVELS).served == (2, 0, 0)
