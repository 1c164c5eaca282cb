"""What a decision sees of the pool: frozen snapshots of workers and of load. Shells build them; nothing mutates."""

from collections.abc import Sequence
from dataclasses import dataclass

from t2i_policy.profile import step_time


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker as last reported, plus what the gateway has sent it since.

    `running` requests are in its step loop, `waiting` are accepted but not in it yet; `batch_cap` and `step_s`
    (seconds of one step by batch size) are the worker's own measurements. `steps_left` sums the denoising steps owed
    to running and waiting requests.
    """

    name: str
    ready: bool
    running: int
    waiting: int
    batch_cap: int
    queue_cap: int
    step_s: tuple[float, ...]
    fixed_s: float
    steps_left: int

    @property
    def in_flight(self) -> int:
        """Requests this worker holds."""
        return self.running + self.waiting

    @property
    def free_slots(self) -> int:
        """Requests that would join its batch at the next step boundary."""
        return max(0, self.batch_cap - self.in_flight) if self.ready else 0

    @property
    def room(self) -> int:
        """Requests it would still accept, its own queue included."""
        return max(0, self.batch_cap + self.queue_cap - self.in_flight) if self.ready else 0

    @property
    def steps_per_s(self) -> float:
        """Denoising steps a second at its full batch."""
        return self.batch_cap / max(step_time(self.step_s, self.batch_cap), 1e-9)

    def finish_s(self, steps: int) -> float:
        """Expected seconds until a request of `steps` steps, sent now, has its image.

        In a free slot it runs at the batch size it joins; else it first waits for its share of the owed steps.
        """
        batch = min(self.batch_cap, self.in_flight + 1)
        run_s = steps * step_time(self.step_s, batch) + self.fixed_s
        if self.free_slots:
            return run_s
        # A slot frees when the shortest of the batch ends: on average after the owed steps of one slot, times those
        # waiting before us.
        ahead_steps = self.steps_left / max(1, self.in_flight) * (1 + self.waiting) / max(1, self.batch_cap)
        return run_s + ahead_steps * step_time(self.step_s, self.batch_cap)


@dataclass(frozen=True, slots=True)
class PoolView:
    """The pool at one instant: its workers, and the steps owed to requests that wait in the gateway."""

    workers: tuple[WorkerView, ...]
    queued: int
    queued_steps: int

    @property
    def ready(self) -> tuple[WorkerView, ...]:
        """Workers that accept requests."""
        return tuple(worker for worker in self.workers if worker.ready)

    @property
    def occupancy(self) -> float:
        """Share of batch slots in use over ready workers; above 1 when requests wait. 1.0 without ready workers."""
        slots = sum(worker.batch_cap for worker in self.ready)
        if slots == 0:
            return 1.0
        return (sum(worker.in_flight for worker in self.ready) + self.queued) / slots

    def backlog_s(self) -> float:
        """Seconds the pool needs to work off every owed step, running, waiting and queued."""
        rate = sum(worker.steps_per_s for worker in self.ready)
        if rate <= 0:
            return float("inf")
        return (sum(worker.steps_left for worker in self.ready) + self.queued_steps) / rate

    def queue_wait_s(self) -> float:
        """Expected seconds in the gateway's queue for a request that joins its end now; 0 with a free slot."""
        if self.queued == 0 and any(worker.free_slots for worker in self.ready):
            return 0.0
        rate = sum(worker.steps_per_s for worker in self.ready)
        return self.queued_steps / rate if rate > 0 else float("inf")


def best_finish_s(workers: Sequence[WorkerView], steps: int) -> float:
    """Expected seconds to an image of `steps` steps on the worker that would finish it first; inf without one."""
    return min((worker.finish_s(steps) for worker in workers if worker.ready), default=float("inf"))
