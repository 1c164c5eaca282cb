"""Who of a batch gives way: as many as can be are in time, and nobody waits for nothing."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_policy.giving_way import OwedInPlaces, choose_running, is_hopeless

LINEAR_S = tuple(0.1 * size for size in range(1, 9))
FLAT_S = (0.1,) * 8
#: Owed (seconds left, steps), how many run, seconds of a step by batch size, cap; who runs, None = all that do.
CASES = {
    "all in time": ([(10.0, 10)] * 4, 4, LINEAR_S, 8, None),
    "one late by less than measuring errs": ([(3.8, 10)] * 4, 4, LINEAR_S, 8, None),
    "two of four can be": ([(2.0, 10)] * 4, 4, LINEAR_S, 8, [0, 1]),
    "a step takes as long for one alone": ([(0.5, 10), (2.0, 10)], 2, FLAT_S, 8, [0, 1]),
    "who has most left gives way": ([(2.0, 10), (2.0, 15), (2.0, 9)], 3, LINEAR_S, 8, [0, 2]),
    "who has no deadline gives way": ([(inf, 20), (1.0, 10)], 2, LINEAR_S, 8, [1]),
    "one that waits can be in time, one that runs cannot": ([(0.5, 10), (1.0, 10)], 1, LINEAR_S, 1, [1]),
    "none can be: they run on": ([(0.5, 10), (0.6, 10)], 2, LINEAR_S, 8, [0, 1]),
    "one without hope runs beside one that bears it": ([(0.5, 10), (2.1, 10), (1.0, 1)], 3, LINEAR_S, 8, [0, 1, 2]),
    "one without hope waits for one that does not": ([(0.5, 10), (1.5, 10)], 2, LINEAR_S, 8, [1]),
}


@pytest.mark.parametrize("case", CASES)
def test_who_runs(case: str) -> None:
    owed, running, step_s, cap, expected = CASES[case]
    assert choose_running([OwedInPlaces(*one) for one in owed], running, step_s, cap) == expected


def test_large_images_take_their_places() -> None:
    """One of four places makes the step as long as four others would; beside it nobody is in time."""
    owed = [OwedInPlaces(1.0, 10), OwedInPlaces(9.0, 10, 4.0)]
    assert choose_running(owed, 2, LINEAR_S, 8) == [0]


OWED = st.lists(
    st.builds(OwedInPlaces, st.floats(0.1, 20.0), st.integers(1, 30).map(float), st.just(1.0)), min_size=1, max_size=12
)


@given(OWED, st.sampled_from([LINEAR_S, FLAT_S]), st.integers(1, 8))
def test_the_device_is_never_idle_and_never_overfull(
    owed: list[OwedInPlaces], step_s: tuple[float, ...], cap: int
) -> None:
    """Whoever gives way, somebody runs, each once, within the cap."""
    chosen = choose_running(owed, min(cap, len(owed)), step_s, cap)
    if chosen is not None:
        assert 1 <= len(chosen) <= cap
        assert chosen == sorted(set(chosen))


@given(OWED, st.integers(1, 8))
def test_giving_way_loses_nobody_who_could_be_in_time(owed: list[OwedInPlaces], cap: int) -> None:
    """Ending early is for those whom nothing can save: one that the present pace serves in time is none of them."""
    for one in owed:
        if choose_running([one], 1, LINEAR_S, cap) is None:
            assert not is_hopeless(one, LINEAR_S[0])
