"""Outlier detection: which workers are left out, and which requests leave them. Here and nowhere else in the gateway.

Every LOOK_EVERY_S, of all workers at once:

    1. judge each by its last two reports                  `t2i_policy.outliers.judge`
    2. say who may be used, among all that could serve      `t2i_policy.outliers.usable`
    3. requests leave an ejected worker where that is sooner `t2i_policy.outliers.moves`

Time is counted in looks, and a look that comes late counts as MAX_LOOK_S at most: a gateway that was stopped, swapped
out or starved reads what came meanwhile before it calls anybody silent.
"""

import logging
from collections.abc import Callable, Collection

from t2i_gateway.workers.connection import WorkerConnection
from t2i_policy.outliers import HealthState, WorkReport, judge, moves, usable
from t2i_policy.profile import step_time
from t2i_protos.v1 import worker_pb2

log = logging.getLogger(__name__)
LOOK_EVERY_S = 0.25
MAX_LOOK_S = 2 * LOOK_EVERY_S
LOST_LIMIT_S = 5.0  # a connection this silent is begun anew
RELOADING_LIMIT_S = 60.0  # that of a worker which loads another model
OLD_PROMISE_S = 1.0  # of workers that do not say how often they send their load


class OutlierDetection:
    """Judges all workers of a gateway. `clock`: seconds that never go back.

    `on_ejection` hears why a worker is left out; `on_change`, that workers may be used otherwise than before.
    """

    def __init__(
        self, clock: Callable[[], float], on_ejection: Callable[[str], None], on_change: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._on_ejection = on_ejection
        self._on_change = on_change
        self._looked_s = clock()
        self.now_s = 0.0  # by looks

    def look(self, serving: Collection[WorkerConnection], leaving: Collection[WorkerConnection]) -> None:
        """Judge everybody. To be called every LOOK_EVERY_S. Who is `leaving` has left the pool and ends what it has."""
        now_s = self._clock()
        self.now_s += min(MAX_LOOK_S, now_s - self._looked_s)
        self._looked_s = now_s
        for worker in (*serving, *leaving):
            worker.failures.look(worker.ready)
        for worker in (*serving, *leaving):
            self._judge(worker)
        self.settle(serving, leaving)

    def _judge(self, worker: WorkerConnection) -> None:
        watch = worker.watch
        if watch is None:
            return  # it is being reached: not ready
        before = watch.judged
        heard_s = self.now_s if watch.has_news or before is None else before.heard_s
        report = watch.judged = work_report(worker.load, heard_s)
        watch.has_news = False
        # The first report of a stream has none before it: no steps are judged by it. Who loads another model makes no
        # steps, and may have no time to speak.
        if not worker.is_reloading:
            worker.set_health(judge(worker.health, before or report, report, self.now_s))
        if self.now_s - heard_s >= (RELOADING_LIMIT_S if worker.is_reloading else LOST_LIMIT_S):
            watch.end()

    def settle(self, serving: Collection[WorkerConnection], leaving: Collection[WorkerConnection]) -> None:
        """How each worker may be used: together, as who is ejected depends on who else could serve."""
        states: dict[str, HealthState] = {}
        for model in {worker.model for worker in serving}:
            able = {worker.address: worker.health for worker in serving if worker.ready and worker.model == model}
            states |= usable(able, self.now_s)
        changed = False
        for worker in (*serving, *leaving):
            self._tell(worker)
            changed |= worker.set_state(states.get(worker.address) or worker.health.state(self.now_s))
            if worker.state is HealthState.EJECTED:
                self._move_requests(worker)
        if changed:
            self._on_change()

    @staticmethod
    def _move_requests(worker: WorkerConnection) -> None:
        for slot in worker.slots:
            if slot.may_move and moves(worker.health, slot.steps_left, slot.steps):
                slot.give_up()

    def _tell(self, worker: WorkerConnection) -> None:
        if worker.health.ejections > worker.told_ejections:
            log.warning("worker %s is left out for a while: %s", worker.name, worker.health.reason)
            self._on_ejection(worker.health.reason)
        worker.told_ejections = worker.health.ejections


def work_report(load: worker_pb2.WorkerLoad, heard_s: float) -> WorkReport:
    """The part of a load that health is judged by."""
    return WorkReport(
        steps_took_s=load.steps_took_ms / 1e3,
        steps_usual_s=load.steps_usual_ms / 1e3,
        step_age_s=load.step_age_ms / 1e3,
        encode_age_s=load.encode_age_ms / 1e3,
        step_s=step_time(load.step_ms, load.batch_cap) / 1e3,
        encodes_s=load.batch_cap * load.fixed_ms / 1e3,
        promised_s=load.next_within_ms / 1e3 or OLD_PROMISE_S,
        heard_s=heard_s,
    )
