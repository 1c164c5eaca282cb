"""The simulated pool: workers with their step loops, and the views that decisions see of them.

A worker's view is built anew when its own state changes, and every `REPORT_EVERY_S` while it steps (real workers report
more often); the pool's view is put together from them and from running totals.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from t2i_policy.batch_limit import batch_limit
from t2i_policy.level import Level
from t2i_policy.outliers import HealthState, WorkerHealth, usable
from t2i_policy.pool_view import OtherQueues, PoolView, WorkerView
from t2i_policy.profile import LevelProfile
from t2i_simulator.stepping import SimulatedStepLoop
from t2i_simulator.totals import Totals

REPORT_EVERY_S = 2.0  # of a worker that nothing happens to: its owed steps are this much out of date at most
SOUND = WorkerHealth()
NEVER_S = -inf
EJECTED, ON_TRIAL = HealthState.EJECTED, HealthState.ON_TRIAL  # an enum takes its time to look its members up


@dataclass(frozen=True, slots=True)
class Group:
    """Equal workers: how many, what was measured of one of them, and which model of the profile it holds (empty: its
    own)."""

    name: str
    num_workers: int
    profile: LevelProfile
    model: str = ""

    @property
    def step_s(self) -> tuple[float, ...]:
        """Seconds of one step of its model, by batch size."""
        return self.profile.section(self.model).step_s


class SimulatedWorker:
    """One worker. `alive` until a fault; `holds` its model, where workers are loaded anew; `state` is what its health
    allows."""

    __slots__ = ("alive", "batch_cap", "fixed_s", "group", "health", "holds", "index", "level", "loop", "model",
                 "name", "queue_cap", "state", "step_s")  # fmt: skip

    def __init__(self, index: int, name: str, group: Group) -> None:
        measured = group.profile.section(group.model)
        self.index = index
        self.name = name
        self.group = group.name
        self.model = group.model
        self.step_s = measured.step_s
        self.fixed_s = measured.fixed_s
        self.batch_cap = len(measured.step_s)
        self.queue_cap = max(4, self.batch_cap)  # as the real engines
        self.loop = SimulatedStepLoop(measured.step_s, self.batch_cap)
        self.level: Level | None = None
        self.alive = True
        self.holds = True
        self.health = SOUND
        self.state = HealthState.GOOD

    @property
    def ready(self) -> bool:
        """True if it takes requests."""
        return self.alive and self.holds and self.state is not EJECTED

    @property
    def is_overfull(self) -> bool:
        """True if it would refuse one more request."""
        return self.loop.in_flight >= self.batch_cap + self.queue_cap

    def view(self, now_s: float) -> WorkerView:
        """What a decision sees of it now. On trial it offers one slot and no queue."""
        loop = self.loop
        done = loop.steps_done(now_s)
        return WorkerView(
            self.name,
            self.ready,
            loop.running_places,
            loop.waiting_places,
            1 if self.state is ON_TRIAL else self.batch_cap,
            self.step_s,
            self.fixed_s,
            loop.steps_left(done),
            self.group,
            self.level,
            batch_limit=batch_limit(self.step_s, loop.longest_step_s(done)),
            model=self.model,
        )


class WorkerReport(NamedTuple):
    """A view of this worker was built then."""

    at_s: float
    worker: int


class SimulatedPool:
    def __init__(self, groups: Iterable[Group], gateways: int = 1) -> None:
        self._gateways = gateways
        self.workers: list[SimulatedWorker] = []
        for group in groups:
            for number in range(group.num_workers):
                self.workers.append(SimulatedWorker(len(self.workers), f"{group.name}-{number}", group))
        self._by_name = {worker.name: worker for worker in self.workers}
        self._totals = Totals([worker.view(0.0) for worker in self.workers])
        self._reports: deque[WorkerReport] = deque()  # of those that step, longest ago first; newer ones may follow
        self._reported_s = [NEVER_S] * len(self.workers)
        self._changed: set[int] = set()

    def by_name(self, name: str) -> SimulatedWorker:
        """The worker of a view's name."""
        return self._by_name[name]

    def has(self, name: str) -> bool:
        return name in self._by_name

    def changed(self, worker: SimulatedWorker) -> None:
        """Its view is out of date; it is built anew when somebody looks, so several changes share one."""
        self._changed.add(worker.index)

    def view(
        self,
        now_s: float,
        queued: int,
        queued_steps: int,
        ahead_steps: int | None = None,
        others: OtherQueues | None = None,
    ) -> PoolView:
        """The pool as a gateway's decisions see it now; `queued` requests of `queued_steps` wait there."""
        self._rebuild(now_s)
        return self._totals.pool(queued, queued_steps, ahead_steps, self._gateways, others)

    def free_slots(self, now_s: float) -> int:
        """Places that requests would get at once, as decisions see it now."""
        self._rebuild(now_s)
        return self._totals.free_slots

    def _rebuild(self, now_s: float) -> None:
        """Build the views that are out of date."""
        reports, reported_s, changed = self._reports, self._reported_s, self._changed
        while reports and now_s - reports[0].at_s > REPORT_EVERY_S:
            report = reports.popleft()
            if reported_s[report.worker] == report.at_s:
                changed.add(report.worker)
        if not changed:
            return
        for index in changed:
            worker = self.workers[index]
            self._totals.replace(index, worker.view(now_s))
            reported_s[index] = NEVER_S
            if worker.loop.running:
                reported_s[index] = now_s
                reports.append(WorkerReport(now_s, index))
        changed.clear()

    def judge_health(self, now_s: float) -> None:
        """Take in what the workers' healths allow now."""
        states = usable({worker.name: worker.health for worker in self.workers if worker.alive}, now_s)
        for worker in self.workers:
            state = states.get(worker.name, HealthState.GOOD)
            if state is not worker.state:
                worker.state = state
                self.changed(worker)
