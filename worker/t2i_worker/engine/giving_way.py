"""Who of a batch gives way, for the step loop: how long its steps take now, and what its requests owe.

The present step times are those that warm-up measured, times the present pace. Averages that are learned later would
not do: they follow the batch sizes that run, and no longer say what another size would take.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from math import inf

from t2i_policy.giving_way import PACE_STEPS, OwedInPlaces, choose_running, is_hopeless
from t2i_worker.engine.batching import StepTimes, WarmUpTimes
from t2i_worker.engine.request import RunningRequest


class GivingWay:
    """Used under the step loop's lock, but for `learn`."""

    def __init__(self, times: WarmUpTimes) -> None:
        self._times = StepTimes(times)  # as measured: nothing is learned here
        self._fixed_s = times.fixed_s
        self._paces: deque[float] = deque(maxlen=PACE_STEPS)
        self._best = 1.0  # pace so far: warm-up may have met a busy device

    def learn(self, counts: Mapping[float, int], step_s: float) -> None:
        """A step of so many requests, by what their steps cost, took so long."""
        usual_s = self._times.usual_s(counts)
        if usual_s > 0:
            self._paces.append(step_s / usual_s)
            self._best = min(self._best, step_s / usual_s)

    def is_hopeless(self, request: RunningRequest, now_s: float) -> bool:
        """True if it cannot be in time any more. Before any pace is known, nobody is."""
        if len(self._paces) < PACE_STEPS:
            return False
        alone_s = self._times.usual_s({request.step_cost: 1})
        return is_hopeless(_owed(request, now_s), self._best * alone_s)

    def choose(
        self, requests: Sequence[RunningRequest], num_running: int, batch_cap: int, now_s: float
    ) -> list[int] | None:
        """Positions of those that run now; None: the first `num_running`."""
        pace = min(self._paces) if len(self._paces) == PACE_STEPS else 1.0
        step_s = [pace * one_s for one_s in self._times.default_s]
        owed = [_owed(request, now_s, self._fixed_s) for request in requests]
        return choose_running(owed, num_running, step_s, batch_cap)


def _owed(request: RunningRequest, now_s: float, fixed_s: float = 0.0) -> OwedInPlaces:
    """`fixed_s`: what follows the steps of an image of the default size."""
    left_s = inf if request.deadline_s is None else request.deadline_s - now_s - fixed_s * request.step_cost
    return OwedInPlaces(left_s, request.owed_steps, request.step_cost)
