"""The simulated pool's running totals equal what a view made afresh sums up."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from t2i_policy.pool_view import PoolView, WorkerView
from t2i_simulator.totals import Totals

FIELDS = ("workers", "queued", "queued_steps", "ready", "steps_per_s", "slots", "free_slots", "in_flight", "owed_steps")
NUM = 4
A10G, A100 = (0.08, 0.15), (0.03, 0.05, 0.07)


def blank(index: int) -> WorkerView:
    """An idle worker; two device types."""
    step_s = A10G if index % 2 else A100
    return WorkerView(f"w-{index}", True, 0, 0, len(step_s), step_s, 0.2, 0)


changes = st.tuples(
    st.integers(0, NUM - 1),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 200),
    st.booleans(),
    st.integers(1, 3),
)


@given(st.lists(changes, max_size=40))
def test_totals_after_any_changes_equal_a_fresh_view(steps: list[tuple[int, bool, int, int, int, bool, int]]) -> None:
    """Workers fill, empty, come, go and are tried with one slot; sums, and the soonest finish, stay a fresh view's."""
    views = [blank(index) for index in range(NUM)]
    totals = Totals(views)
    for index, ready, running, waiting, owed, on_trial, limit in steps:
        cap = 1 if on_trial else len(views[index].step_s)
        views[index] = replace(
            views[index],
            ready=ready,
            running=min(running, cap),
            waiting=waiting,
            steps_left=owed,
            batch_cap=cap,
            batch_limit=limit,
        )
        totals.replace(index, views[index])
        kept, fresh = totals.pool(3, 90), PoolView(tuple(views), 3, 90)
        assert [getattr(kept, name) for name in FIELDS] == [getattr(fresh, name) for name in FIELDS]
        assert sorted(kept.paces) == sorted(fresh.paces)
        assert kept.best_finish_s(30) == fresh.best_finish_s(30)
