"""Requests of several image sizes in one pool: what a step costs, and what follows from it for time, price and room."""

from dataclasses import replace

import pytest

from small_pools import EXACT, RULES, SLO_S, STEP_S, asks, pool_of, worker
from t2i_api.model import ModelPart, SizePart
from t2i_policy.image_size import ImageSize, SizeCost, counted_steps, step_cost_of
from t2i_policy.pool_view import PoolView, WorkerView
from t2i_policy.profile import LevelProfile, step_time
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_policy.request.admission import Refused, RefusedReason, decide_admission
from t2i_policy.request.placement import choose_worker

DEFAULT = ImageSize(64, 64)
MEASURED = (SizeCost(ImageSize(32, 32), 0.4), SizeCost(ImageSize(128, 128), 5.0), SizeCost(ImageSize(96, 32), 0.7))
COSTS = {
    "the default size": (ImageSize(64, 64), 1.0),
    "a measured size": (ImageSize(128, 128), 5.0),
    "as many pixels as the default, in another shape": (ImageSize(128, 32), 1.0),
    "between two measured ones": (ImageSize(64, 160), 1 + 4 * (64 * 160 - 4096) / (128 * 128 - 4096)),
    "half of the smallest": (ImageSize(16, 32), 0.2),
    "twice the largest": (ImageSize(256, 128), 10.0),
}
MODEL = ModelPart(
    source="builtin://scenes",
    width=64,
    height=64,
    sizes=(
        SizePart(width=96, height=32),
        SizePart(width=32, height=48, max_width=64, max_height=80, multiple_of=16),
    ),
)
SERVED = {(64, 64): True, (96, 32): True, (32, 96): False, (32, 48): True, (48, 80): True, (64, 72): False,
          (80, 48): False, (0, 0): False}  # fmt: skip


@pytest.mark.parametrize("sentence", COSTS)
def test_cost_of_a_size_is_read_off_the_measured_ones(sentence: str) -> None:
    size, expected = COSTS[sentence]
    assert step_cost_of(size, DEFAULT, MEASURED) == pytest.approx(expected)


def test_without_measurements_the_pixels_tell() -> None:
    """As the simulated engine's, and an older worker's."""
    assert step_cost_of(ImageSize(128, 64), DEFAULT, ()) == 2.0


@pytest.mark.parametrize("size", SERVED)
def test_pool_serves_what_it_lists(size: tuple[int, int]) -> None:
    assert MODEL.serves(*size) is SERVED[size]


def test_ends_and_middle_of_a_range_are_measured() -> None:
    """The default one first; no size twice. One beside the smallest shows whether the multiple is right."""
    assert MODEL.measured_sizes == (
        ImageSize(64, 64),
        ImageSize(32, 48),
        ImageSize(48, 64),
        ImageSize(96, 32),
        ImageSize(64, 80),
    )
    assert MODEL.sizes_served == "64x64, 96x32, 32x48 to 64x80 in steps of 16"


def test_profile_keeps_costs_and_older_ones_have_none() -> None:
    profile = LevelProfile("digest", "gpu", 50, STEP_S, 0.1, (), sizes=MEASURED)
    text = render_profile(profile)
    assert parse_profile(text) == profile
    assert parse_profile(render_profile(replace(profile, sizes=()))).sizes == ()


def test_default_size_sees_the_pool_as_it_is() -> None:
    pool = pool_of(running=2)
    assert pool.for_cost(1.0) is pool


@pytest.mark.parametrize("step_cost", [0.25, 2.0, 4.0])
@pytest.mark.parametrize("running", [0, 1, 3])
def test_image_pays_for_its_own_size_and_for_the_batch_around_it(step_cost: float, running: int) -> None:
    """Where time grows by the pixels, a step takes what the default size takes in a batch of that many pixels."""
    by_pixels = tuple(0.1 * batch for batch in range(1, 5))
    view = replace(worker("a", running), step_s=by_pixels, fixed_s=0.5)
    expected_s = 50 * 0.1 * (running + step_cost) + 0.5 * step_cost
    assert view.for_cost(step_cost).finish_s(50) == pytest.approx(expected_s)
    assert PoolView((view,), 0, 0).for_cost(step_cost).alone_s(50) == pytest.approx(
        50 * 0.1 * step_cost + 0.5 * step_cost
    )


def test_full_batch_and_backlog_count_in_steps_of_the_default_size() -> None:
    """Whoever asks, the pool does as many steps a second, and owes as many."""
    pool = pool_of(running=4, queued=3)
    seen = pool.for_cost(3.0)
    assert (seen.backlog_s(), seen.queue_wait_s(), seen.occupancy) == (
        pool.backlog_s(),
        pool.queue_wait_s(),
        pool.occupancy,
    )
    assert counted_steps(50, 3.0) == 150
    assert counted_steps(1, 0.1) == 1


def test_large_image_joins_where_a_place_is_free_and_deadlines_bear_it() -> None:
    """Kept for small ones, the last place would stand empty; a batch that must stay fast takes it not."""
    almost_full, urgent = worker("a", 3), replace(worker("b", 2), batch_limit=4)
    assert almost_full.for_cost(4.0).free_slots == 1
    assert urgent.free_slots == 2
    assert urgent.for_cost(4.0).free_slots == 0
    placed = choose_worker(PoolView((almost_full, urgent), 0, 0).for_cost(4.0).ready, EXACT, 1e6, 0.9)
    assert placed is not None
    assert placed.worker == "a"
    idle = replace(worker("c"), batch_limit=1)
    assert idle.for_cost(4.0).free_slots, "alone it delays nobody"


def test_large_image_pays_its_size_times_the_price() -> None:
    """A backlog that bends it first leaves the default size alone."""
    bent = {
        cost: [
            RULES.decide(replace(asks(0.8, left_s=1e6), step_cost=cost), pool_of(8, 0, queued)).served.level.steps_run
            for queued in range(25)
        ]
        for cost in (0.5, 1.0, 4.0)
    }
    assert sum(bent[4.0]) < sum(bent[1.0]) < sum(bent[0.5])
    assert all(large <= usual <= small for large, usual, small in zip(bent[4.0], bent[1.0], bent[0.5], strict=True))


def test_large_image_that_cannot_be_in_time_is_refused_as_such() -> None:
    """Alone it takes four times as long as one that is admitted."""
    pool, left_s = pool_of(), 1.5 * 50 * step_time(STEP_S, 1)
    for cost, reason in ((1.0, None), (4.0, RefusedReason.DEADLINE_UNREACHABLE)):
        limits = replace(asks(None).limits, exact=True)
        arrival = replace(asks(None, limits=limits, left_s=left_s), step_cost=cost)
        decided = RULES.decide(arrival, pool)
        admission = decide_admission(pool.for_cost(cost), decided.served, left_s, 10)
        assert (admission.reason if isinstance(admission, Refused) else None) == reason
    assert left_s < SLO_S


def test_trial_and_unready_workers_stay_what_they_are() -> None:
    gone = replace(worker("a"), ready=False)
    seen: WorkerView = gone.for_cost(2.0)
    assert (seen.ready, seen.free_slots) == (False, 0)
