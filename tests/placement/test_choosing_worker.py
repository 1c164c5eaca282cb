"""Placement: spread at low load, fill batches at high load, never a worker that cannot take it."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from t2i_policy.level import Level
from t2i_policy.pool_view import WorkerView
from t2i_policy.request.placement import PlacementReason, choose_worker

GAINING = (0.10, 0.11, 0.12, 0.13)  # a batch of 4 costs little more than one
LINEAR = (0.10, 0.20, 0.30, 0.40)  # batching gains nothing


def worker(name: str, running: int, step_s: tuple[float, ...] = GAINING, ready: bool = True) -> WorkerView:
    return WorkerView(name, ready, running, 0, 4, step_s, 0.05, steps_left=10 * running)


def test_low_load_spreads_to_idle_worker() -> None:
    """Each request runs in the smallest batch: its image comes first."""
    chosen = choose_worker([worker("busy", 2), worker("idle", 0)], level=Level(0, 10), left_s=60, occupancy=0.25)
    assert chosen is not None
    assert (chosen.worker, chosen.reason) == ("idle", PlacementReason.EARLIEST_FINISH)


def test_high_load_fills_fullest_batch() -> None:
    """The nearly full batch is topped up; whole slots stay for those behind."""
    chosen = choose_worker([worker("full-ish", 3), worker("half", 2)], level=Level(0, 10), left_s=60, occupancy=0.7)
    assert chosen is not None
    assert (chosen.worker, chosen.reason) == ("full-ish", PlacementReason.FILL_BATCH)


def test_no_filling_where_batching_gains_nothing() -> None:
    """On a compute-bound device a fuller batch only delays everyone in it."""
    workers = [worker("full-ish", 3, LINEAR), worker("half", 1, LINEAR)]
    chosen = choose_worker(workers, level=Level(0, 10), left_s=60, occupancy=0.7)
    assert chosen is not None
    assert (chosen.worker, chosen.reason) == ("half", PlacementReason.EARLIEST_FINISH)


def test_filling_never_breaks_deadline() -> None:
    """1.25 s left: joining a batch of 4 takes 1.35 s, a batch of 2 takes 1.15 s."""
    chosen = choose_worker([worker("full-ish", 3), worker("one", 1)], level=Level(0, 10), left_s=1.25, occupancy=0.7)
    assert chosen is not None
    assert chosen.worker == "one"


def test_faster_device_preferred() -> None:
    """Each worker's own measured step time counts, so device types mix."""
    slow = replace(worker("slow", 0), step_s=(1.0, 1.0, 1.0, 1.0))
    chosen = choose_worker([slow, worker("fast", 2)], level=Level(0, 10), left_s=60, occupancy=0.2)
    assert chosen is not None
    assert chosen.worker == "fast"


@given(
    running=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    ready=st.lists(st.booleans(), min_size=6, max_size=6),
    occupancy=st.floats(0, 2),
    excluded=st.frozensets(st.sampled_from(["w0", "w1", "w2"])),
)
def test_choice_always_has_free_slot(
    running: list[int], ready: list[bool], occupancy: float, excluded: frozenset[str]
) -> None:
    """Never full, not ready or excluded; None only if there is no such worker."""
    workers = [worker(f"w{i}", count, ready=ready[i]) for i, count in enumerate(running)]
    chosen = choose_worker(workers, level=Level(0, 10), left_s=60, occupancy=occupancy, excluded=excluded)
    usable = {w.name for w in workers if w.ready and w.in_flight < w.batch_cap and w.name not in excluded}
    assert (chosen is None) == (not usable)
    assert chosen is None or chosen.worker in usable


def test_worker_that_failed_is_tried_by_a_request_with_time_for_another() -> None:
    """One at a time, whatever the load; a request in a hurry goes where images are known to come."""
    proven, tried = worker("proven", 0), replace(worker("tried", 0), unproven=True)
    for occupancy in (0.1, 0.9):
        chosen = choose_worker([proven, tried], Level(0, 10), left_s=60, occupancy=occupancy)
        assert chosen is not None
        assert (chosen.worker, chosen.reason) == ("tried", PlacementReason.TRIAL)
    hurried = choose_worker([proven, tried], Level(0, 10), left_s=1.5 * proven.finish_s(10), occupancy=0.1)
    busy = choose_worker([proven, replace(tried, running=1)], Level(0, 10), left_s=60, occupancy=0.1)
    again = choose_worker([proven, tried], Level(0, 10), 60, 0.1, frozenset({"tried"}))
    assert hurried is not None
    assert busy is not None
    assert again is not None
    assert {hurried.worker, busy.worker, again.worker} == {"proven"}
