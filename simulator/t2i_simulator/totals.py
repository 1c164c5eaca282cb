"""The sums that `PoolView` computes over all workers, kept up to date when one worker changes.

Every request needs two views, and computing these sums anew was the simulator's largest cost. A test compares them with
those of a new view.
"""

from collections.abc import Sequence
from math import inf
from typing import Any

from t2i_policy.pool_view import OtherQueues, PoolView, WorkerView


class LeastRests:
    """The least `rest_s` of some workers, by their pace."""

    def __init__(self) -> None:
        self.by_pace: dict[float, float] = {}
        self._counts: dict[float, dict[float, int]] = {}  # workers by pace, then by `rest_s`

    def enter(self, view: WorkerView) -> None:
        pace, rest_s = view.join_step_s, view.rest_s
        counts = self._counts.setdefault(pace, {})
        counts[rest_s] = counts.get(rest_s, 0) + 1
        if rest_s < self.by_pace.get(pace, inf):
            self.by_pace[pace] = rest_s

    def leave(self, view: WorkerView) -> None:
        pace, rest_s = view.join_step_s, view.rest_s
        counts = self._counts[pace]
        counts[rest_s] -= 1
        if counts[rest_s]:
            return
        del counts[rest_s]
        if not counts:
            del self._counts[pace], self.by_pace[pace]
        elif rest_s == self.by_pace[pace]:  # only the least one's leaving changes the minimum
            self.by_pace[pace] = min(counts)


class Totals:
    """Sums over the ready workers of `views`. `free_slots` is what one more request may take at once."""

    def __init__(self, views: Sequence[WorkerView]) -> None:
        self._views = list(views)
        self._count()

    def _count(self) -> None:
        """Compute all sums anew, after a worker became ready or unready, or changed its batch cap."""
        self._pool = PoolView(tuple(self._views), 0, 0)
        self._in_flight, self._owed_steps = self._pool.in_flight, self._pool.owed_steps
        self.free_slots = self._pool.free_slots
        self._is_seen = False
        self._free, self._full = LeastRests(), LeastRests()
        for view in self._pool.ready:
            self._rests_of(view).enter(view)

    def _rests_of(self, view: WorkerView) -> "LeastRests":
        return self._free if view.free_slots else self._full

    def replace(self, index: int, view: WorkerView) -> None:
        """Set the view of worker `index`."""
        before, self._views[index] = self._views[index], view
        self._is_seen = False
        if view.ready is not before.ready or view.batch_cap != before.batch_cap:
            self._count()  # rare: a worker came, went or ran out of memory
        elif view.ready:
            self._in_flight += view.running + view.waiting - before.running - before.waiting
            self._owed_steps += view.steps_left - before.steps_left
            self.free_slots += view.free_slots - before.free_slots
            moved = view.join_step_s != before.join_step_s or view.rest_s != before.rest_s
            if moved or (view.free_slots > 0) is not (before.free_slots > 0):
                self._rests_of(before).leave(before)
                self._rests_of(view).enter(view)

    def pool(
        self,
        queued: int,
        queued_steps: int,
        ahead_steps: int | None = None,
        gateways: int = 1,
        others: OtherQueues | None = None,
    ) -> PoolView:
        """Make a `PoolView` past its constructor, which would compute the sums."""
        if not self._is_seen:
            self._see()
        pool: Any = object.__new__(PoolView)
        pool.workers, pool.ready, pool.paces = self._workers, self._ready, self._paces
        pool.queued, pool.queued_steps, pool.ahead_steps = queued, queued_steps, ahead_steps
        pool.gateways, pool.others = gateways, others
        pool.free_slots, pool.in_flight, pool.owed_steps = self.free_slots, self._in_flight, self._owed_steps
        counted = self._pool
        pool.parts, pool.steps_per_s, pool.slots = counted.parts, counted.steps_per_s, counted.slots
        pool.alone = counted.alone
        view: PoolView = pool
        return view

    def _see(self) -> None:
        """What all views have in common until a worker changes."""
        self._is_seen = True
        self._workers = tuple(self._views)
        all_ready = len(self._pool.ready) == len(self._workers)
        self._ready = self._workers if all_ready else tuple([view for view in self._workers if view.ready])
        self._paces = tuple((self._free.by_pace or self._full.by_pace).items())
