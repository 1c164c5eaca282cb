"""The sums that `PoolView` computes over all workers, kept up to date when one worker changes.

Every request needs two views, and computing these sums anew was the simulator's largest cost. A test compares them with
those of a new view.
"""

from collections.abc import Sequence
from math import inf

from t2i_policy.pool_view import OtherQueues, PoolView, WorkerView


class LeastRests:
    """The least `rest_s` of some workers, by their pace."""

    def __init__(self) -> None:
        self.by_pace: dict[float, float] = {}
        self._rests: dict[float, dict[str, float]] = {}  # by pace, then by worker

    def enter(self, view: WorkerView) -> None:
        pace = view.join_step_s
        self._rests.setdefault(pace, {})[view.name] = view.rest_s
        if view.rest_s < self.by_pace.get(pace, inf):
            self.by_pace[pace] = view.rest_s

    def leave(self, view: WorkerView) -> None:
        pace, rests = view.join_step_s, self._rests[view.join_step_s]
        del rests[view.name]
        if not rests:
            del self._rests[pace], self.by_pace[pace]
        elif view.rest_s == self.by_pace[pace]:  # only the least one's leaving changes the minimum
            self.by_pace[pace] = min(rests.values())


class Totals:
    """Sums over the ready workers of `views`."""

    def __init__(self, views: Sequence[WorkerView]) -> None:
        self._views = list(views)
        self._count()

    def _count(self) -> None:
        """Compute all sums anew, after a worker became ready or unready, or changed its batch cap."""
        self._pool = PoolView(tuple(self._views), 0, 0)
        self._in_flight, self._owed_steps = self._pool.in_flight, self._pool.owed_steps
        self._free, self._full = LeastRests(), LeastRests()
        for view in self._pool.ready:
            self._rests_of(view).enter(view)

    def _rests_of(self, view: WorkerView) -> "LeastRests":
        return self._free if view.free_slots else self._full

    def replace(self, index: int, view: WorkerView) -> None:
        """Set the view of worker `index`."""
        before, self._views[index] = self._views[index], view
        if view.ready is not before.ready or view.batch_cap != before.batch_cap:
            self._count()  # rare: a worker came, went or ran out of memory
        elif view.ready:
            self._in_flight += view.running + view.waiting - before.running - before.waiting
            self._owed_steps += view.steps_left - before.steps_left
            left, entered = self._rests_of(before), self._rests_of(view)
            if left is not entered or view.join_step_s != before.join_step_s or view.rest_s != before.rest_s:
                left.leave(before)
                entered.enter(view)

    def pool(
        self,
        queued: int,
        queued_steps: int,
        ahead_steps: int | None = None,
        gateways: int = 1,
        others: OtherQueues | None = None,
    ) -> PoolView:
        """Make a `PoolView` past its constructor, which would compute the sums."""
        workers, counted = tuple(self._views), self._pool
        all_ready = len(counted.ready) == len(workers)
        pool = object.__new__(PoolView)
        set_field = object.__setattr__
        set_field(pool, "workers", workers)
        set_field(pool, "queued", queued)
        set_field(pool, "queued_steps", queued_steps)
        set_field(pool, "ahead_steps", ahead_steps)
        set_field(pool, "gateways", gateways)
        set_field(pool, "others", others)
        set_field(pool, "parts", {})
        set_field(pool, "ready", workers if all_ready else tuple(view for view in workers if view.ready))
        set_field(pool, "steps_per_s", counted.steps_per_s)
        set_field(pool, "slots", counted.slots)
        set_field(pool, "in_flight", self._in_flight)
        set_field(pool, "owed_steps", self._owed_steps)
        set_field(pool, "alone", counted.alone)
        set_field(pool, "paces", tuple((self._free.by_pace or self._full.by_pace).items()))
        return pool
