"""Batch caps: as large as still pays, measured sizes only, and the times told for every size up to the cap."""

from collections.abc import Mapping

import pytest

from t2i_worker.engine.batching import (
    GROW_AFTER_S,
    MIN_GAIN,
    BatchCap,
    choose_batch_cap,
    fill_step_times,
    steps_to_place,
)


@pytest.mark.parametrize(
    ("step_s", "cap"),
    [
        pytest.param({1: 0.5}, 1, id="only-one-size-measured"),
        pytest.param({1: 0.1, 2: 0.1, 4: 0.1, 8: 0.1}, 8, id="free-batching-uses-largest"),
        pytest.param({1: 0.1, 2: 0.2, 4: 0.4}, 1, id="linear-cost-gains-nothing"),
        pytest.param({1: 0.1, 2: 0.12, 4: 0.25, 8: 0.5}, 2, id="stops-where-gain-stops"),
        pytest.param({1: 0.1, 2: 0.2, 4: 0.2}, 1, id="never-jumps-over-size-that-does-not-pay"),
        pytest.param({4: 0.1, 1: 0.1, 2: 0.1}, 4, id="order-of-measuring-does-not-matter"),
        pytest.param({1: 0.1, 2: 0.3}, 1, id="slower-in-batch"),
    ],
)
def test_cap_is_largest_size_that_pays(step_s: Mapping[int, float], cap: int) -> None:
    """A larger batch that adds no throughput would only delay everyone in it."""
    assert choose_batch_cap(step_s) == cap


def test_gain_must_reach_threshold() -> None:
    """A gain within measuring noise does not grow the batch; one just above the threshold does."""
    at_threshold = 2 * 0.1 / MIN_GAIN
    assert choose_batch_cap({1: 0.1, 2: at_threshold * 1.001}) == 1
    assert choose_batch_cap({1: 0.1, 2: at_threshold * 0.999}) == 2


@pytest.mark.parametrize(
    ("step_s", "cap", "filled"),
    [
        pytest.param({1: 0.1}, 1, (0.1,), id="one"),
        pytest.param({1: 0.1, 2: 0.2, 4: 0.4}, 4, (0.1, 0.2, 0.3, 0.4), id="between-measured-sizes"),
        pytest.param({1: 0.1, 2: 0.2, 4: 0.4}, 2, (0.1, 0.2), id="cut-at-cap"),
        pytest.param({1: 0.1, 4: 0.4, 8: 0.6}, 8, (0.1, 0.2, 0.3, 0.4, 0.45, 0.5, 0.55, 0.6), id="two-slopes"),
        pytest.param({1: 0.1, 2: 0.2}, 4, (0.1, 0.2, 0.2, 0.2), id="flat-past-last-measured"),
    ],
)
def test_step_times_cover_every_size(step_s: Mapping[int, float], cap: int, filled: tuple[float, ...]) -> None:
    """Placement reads a time for each batch size, so gaps between measured sizes are straight lines."""
    assert fill_step_times(step_s, cap) == pytest.approx(filled)


@pytest.mark.parametrize(("failed", "cap"), [(1, 1), (2, 1), (3, 1), (4, 2), (8, 4), (9, 4)])
def test_cap_halves_when_memory_runs_out(failed: int, cap: int) -> None:
    """Half of what did not fit, and never below one: the worker goes on."""
    assert BatchCap(16).halve(failed, 0.0) == cap


def test_cap_grows_step_by_step_and_more_slowly_where_that_fails() -> None:
    """Never above what warm-up chose. A size that does not fit again is tried after twice the time."""
    cap = BatchCap(8)
    cap.halve(4, 0.0)
    assert [_grown(cap, at * GROW_AFTER_S) for at in (0.9, 1, 1.9, 2, 3)] == [2, 4, 4, 8, 8]
    cap.halve(8, 2.1 * GROW_AFTER_S)
    assert [_grown(cap, at * GROW_AFTER_S) for at in (3.2, 4, 4.2)] == [4, 4, 8]


def _grown(cap: BatchCap, now_s: float) -> int:
    cap.grow(now_s)
    return cap.now


@pytest.mark.parametrize(
    ("steps_left", "cap", "expected"),
    [
        pytest.param([], 2, 0, id="idle"),
        pytest.param([5], 2, 0, id="room-in-the-batch"),
        pytest.param([5, 8], 2, 5, id="full-until-the-first-ends"),
        pytest.param([5, 8, 20], 2, 8, id="one-waits-before-it"),
        pytest.param([5, 8, 1, 1], 2, 7, id="short-ones-wait-before-it"),
        pytest.param([3], 1, 3, id="batch-of-one"),
    ],
)
def test_time_until_a_newcomer_joins(steps_left: list[int], cap: int, expected: int) -> None:
    """So long a latent may be fetched for nothing: the request would wait anyway."""
    assert steps_to_place(steps_left, cap) == expected
