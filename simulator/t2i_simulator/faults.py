"""Faults: workers that die and come back, or step slower for a while, and what health makes of the slow ones.

Only workers with a fault, or whose health has not forgotten one, are watched. Every `WATCH_EVERY_S` they report what a
real worker would, and the gateways' own function judges it (`t2i_policy.outliers.judge`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf

from t2i_policy.outliers import HealthState, WorkReport, judge
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


@dataclass(slots=True)
class _Watched:
    """A watched worker: how slow it is, what it last reported, and the steps of its loop and the instant then.

    `stepped_s`: when a step was last seen to end, or none was due.
    """

    steps: int
    stepped_s: float
    slowdown: float = 1.0
    report: WorkReport = field(default_factory=WorkReport)

    def next_report(self, worker: SimulatedWorker, now_s: float) -> WorkReport:
        """What the worker says now."""
        loop, before = worker.loop, self.report
        done, step_s = loop.steps_done(now_s), loop.expected_step_s or 1.0
        usual_s = (done - self.steps) * step_s
        if done > self.steps or not loop.running or not worker.alive:
            self.stepped_s = now_s
        self.steps = done
        self.report = WorkReport(
            steps_took_s=before.steps_took_s + usual_s * self.slowdown,
            steps_usual_s=before.steps_usual_s + usual_s,
            step_age_s=now_s - self.stepped_s,
            step_s=step_s,
            heard_s=now_s,
        )
        return self.report


class Faults:
    def __init__(self, clock: Clock, pool: SimulatedPool, dispatcher: SimulatedDispatcher, outcomes: Outcomes) -> None:
        self._clock = clock
        self._pool = pool
        self._dispatcher = dispatcher
        self._outcomes = outcomes
        self._watched: dict[str, _Watched] = {}

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
        self._dispatcher.follow(worker, now_s)
        if worker.name not in self._watched:
            self._watched[worker.name] = _Watched(worker.loop.steps_done(now_s), now_s)
            self._clock.at(now_s + WATCH_EVERY_S, self._watch, worker)
        self._watched[worker.name].slowdown = slowdown

    def _watch(self, now_s: float, worker: SimulatedWorker) -> None:
        watched, was_ready = self._watched[worker.name], worker.ready
        before = watched.report
        worker.health = judge(worker.health, before, watched.next_report(worker, now_s), now_s)
        self._dispatcher.give_up_overdue(worker, now_s)
        self._pool.judge_health(now_s)
        if worker.ready is not was_ready:
            self._outcomes.ejections += was_ready
            self._dispatcher.ready_changed(now_s)
        elif worker.state is HealthState.ON_TRIAL:
            self._dispatcher.pump(now_s)
        if watched.slowdown == 1.0 and worker.health == SOUND:
            del self._watched[worker.name]
        else:
            self._clock.at(now_s + WATCH_EVERY_S, self._watch, worker)
