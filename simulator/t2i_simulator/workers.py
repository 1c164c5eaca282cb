"""The simulated pool: workers with their step loops, and the views that decisions see of them.

A worker's view is built anew when its own state changes, and every `REPORT_EVERY_S` while it steps (real workers report
more often); the pool's view is put together from them and from running totals.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from t2i_policy.batch_limit import batch_limit
from t2i_policy.level import Level
from t2i_policy.outliers import HealthState, WorkerHealth, usable
from t2i_policy.pool_view import OtherQueues, PoolView, WorkerView
from t2i_policy.profile import LevelProfile
from t2i_simulator.stepping import SimulatedStepLoop
from t2i_simulator.totals import Totals

REPORT_EVERY_S = 2.0  # of a worker that nothing happens to: its owed steps are this much out of date at most
SOUND = WorkerHealth()


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
        return self.alive and self.holds and self.state is not HealthState.EJECTED

    @property
    def is_overfull(self) -> bool:
        """True if it would refuse one more request."""
        return self.loop.in_flight >= self.batch_cap + self.queue_cap

    def view(self, now_s: float) -> WorkerView:
        """What a decision sees of it now. On trial it offers one slot and no queue."""
        on_trial = self.state is HealthState.ON_TRIAL
        loop = self.loop
        return WorkerView(
            self.name,
            self.ready,
            loop.running_places,
            loop.waiting_places,
            1 if on_trial else self.batch_cap,
            self.step_s,
            self.fixed_s,
            loop.steps_left(now_s),
            self.group,
            self.level,
            batch_limit=batch_limit(self.step_s, loop.longest_step_s(now_s)),
            model=self.model,
        )


class SimulatedPool:
    def __init__(self, groups: Iterable[Group], gateways: int = 1) -> None:
        self._gateways = gateways
        self.workers: list[SimulatedWorker] = []
        for group in groups:
            for number in range(group.num_workers):
                self.workers.append(SimulatedWorker(len(self.workers), f"{group.name}-{number}", group))
        self._by_name = {worker.name: worker for worker in self.workers}
        self._totals = Totals([worker.view(0.0) for worker in self.workers])
        self._base = self._totals.pool(0, 0, gateways=gateways)
        self._reported: OrderedDict[int, float] = OrderedDict()  # of those that step: when, longest ago first
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
        reported = self._reported
        while reported:
            index = next(iter(reported))
            if now_s - reported[index] <= REPORT_EVERY_S:
                break
            del reported[index]
            self._changed.add(index)
        base = self._base
        same = queued == base.queued and queued_steps == base.queued_steps and ahead_steps == base.ahead_steps
        if same and others == base.others and not self._changed:
            return base
        for index in self._changed:
            self._rebuild(index, now_s)
        self._changed.clear()
        self._base = self._totals.pool(queued, queued_steps, ahead_steps, self._gateways, others)
        return self._base

    def _rebuild(self, index: int, now_s: float) -> None:
        worker = self.workers[index]
        self._totals.replace(index, worker.view(now_s))
        if worker.loop.running:
            self._reported[index] = now_s
            self._reported.move_to_end(index)
        else:
            self._reported.pop(index, None)

    def judge_health(self, now_s: float) -> None:
        """Take in what the workers' healths allow now."""
        states = usable({worker.name: worker.health for worker in self.workers if worker.alive}, now_s)
        for worker in self.workers:
            state = states.get(worker.name, HealthState.GOOD)
            if state is not worker.state:
                worker.state = state
                self.changed(worker)
