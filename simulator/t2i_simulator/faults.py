"""Faults: workers that die and come back, or step slower for a while, and what health makes of the slow ones.

Only workers with a fault, or whose health has not forgotten one, are watched, every `WATCH_EVERY_S`: the steps that
ended since are told to `t2i_policy.outliers` one by one, so an ejection is at most that much later than it would be.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from t2i_policy.outliers import HealthState, after_report, after_wait, lateness_limit_s
from t2i_simulator.clock import Clock
from t2i_simulator.dispatching import SimulatedDispatcher
from t2i_simulator.outcomes import Outcomes
from t2i_simulator.workers import SOUND, SimulatedPool, SimulatedWorker

WATCH_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Fault:
    """From `at_s` to `until_s` (virtual seconds) the worker is dead, or steps `slowdown` > 1 times slower."""

    worker: str
    at_s: float
    until_s: float = inf
    slowdown: float | None = None


class Faults:
    def __init__(self, clock: Clock, pool: SimulatedPool, dispatcher: SimulatedDispatcher, outcomes: Outcomes) -> None:
        self._clock = clock
        self._pool = pool
        self._dispatcher = dispatcher
        self._outcomes = outcomes
        self._slowdown: dict[str, float] = {}
        self._stepped_s: dict[str, float] = {}  # of watched workers: when a step was last seen to end

    def schedule(self, faults: Iterable[Fault]) -> None:
        """Set them all.

        Raises:
            KeyError: no worker of that name.
        """
        for fault in faults:
            self._pool.by_name(fault.worker)
            self._clock.at(fault.at_s, self._begin, fault)
            if fault.until_s < inf:
                self._clock.at(fault.until_s, self._end, fault)

    def _begin(self, now_s: float, fault: Fault) -> None:
        worker = self._pool.by_name(fault.worker)
        if fault.slowdown is None:
            worker.alive = False
            self._dispatcher.lose(worker, now_s)
        else:
            self._set_pace(worker, fault.slowdown, now_s)

    def _end(self, now_s: float, fault: Fault) -> None:
        worker = self._pool.by_name(fault.worker)
        if fault.slowdown is None:
            worker.alive, worker.health, worker.state = True, SOUND, HealthState.GOOD
            self._pool.changed(worker)
            self._dispatcher.ready_changed(now_s)
        else:
            self._set_pace(worker, 1.0, now_s)

    def _set_pace(self, worker: SimulatedWorker, slowdown: float, now_s: float) -> None:
        worker.loop.slow_down(slowdown, now_s)
        self._dispatcher.follow(worker)
        self._slowdown[worker.name] = slowdown
        if worker.name not in self._stepped_s:
            self._stepped_s[worker.name] = now_s
            worker.judged_steps = worker.loop.steps_done(now_s)
            self._clock.at(now_s + WATCH_EVERY_S, self._watch, worker)

    def _watch(self, now_s: float, worker: SimulatedWorker) -> None:
        self._judge(worker, now_s)
        self._dispatcher.give_up_overdue(worker, now_s)
        before = worker.ready
        self._pool.judge_health(now_s)
        if worker.ready is not before:
            self._outcomes.ejections += before
            self._dispatcher.ready_changed(now_s)
        elif worker.state is HealthState.ON_TRIAL:
            self._dispatcher.pump(now_s)
        if self._slowdown[worker.name] == 1.0 and worker.health == SOUND:
            del self._stepped_s[worker.name]
        else:
            self._clock.at(now_s + WATCH_EVERY_S, self._watch, worker)

    def _judge(self, worker: SimulatedWorker, now_s: float) -> None:
        done, expected_s = worker.loop.steps_done(now_s), worker.loop.expected_step_s
        fresh = done - worker.judged_steps
        worker.judged_steps = done
        if fresh > 0 or not worker.loop.running or not worker.alive:
            self._stepped_s[worker.name] = now_s
        took_s = (expected_s or 1.0) * self._slowdown[worker.name]
        for _ in range(fresh):
            worker.health = after_report(worker.health, took_s, expected_s or 1.0, now_s)
        if not fresh and worker.loop.running:
            silent_s = now_s - self._stepped_s[worker.name]
            worker.health = after_wait(worker.health, silent_s, lateness_limit_s(expected_s), now_s)
