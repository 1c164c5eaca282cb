"""One worker's step loop in virtual time: batches that change between steps, exact, without an event for each step.

    a step of a batch of b requests takes step_s[b - 1] x slowdown; those of other image sizes count as their step_cost
    a request that arrives during a step joins at its end
    a request whose steps are done leaves at that step boundary, and its slot is free then

Between two changes of the batch all steps take the same time. So the loop is a count of steps at a boundary, which is
advanced when somebody asks. `due_s` is the next boundary at which a request ends. Joining and slowing down may move it;
an event that was set for an earlier `due_s` is recognised by its `version`.

On a device that was slowed down, requests give way as they do live (`t2i_policy.giving_way`). They do so only when the
batch changes, and at the true pace. On other devices it stays visible what was admitted in vain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, inf

from t2i_policy.batch_limit import borne_step_s
from t2i_policy.giving_way import OwedInPlaces, choose_running, is_hopeless
from t2i_policy.profile import step_time

ROUNDING = 1e-9  # in steps: an instant this close to a boundary is on it


@dataclass(slots=True, eq=False)
class SimulatedJob:
    """A request at the worker. Its steps are done when the loop's count reaches `ends_at_step`, in time by `due_s`.

    A step costs `step_cost` of the default size, and as many places of the batch.
    """

    request: int
    steps: int
    ends_at_step: int = 0
    due_s: float = inf
    step_cost: float = 1.0


class SimulatedStepLoop:
    """`now_s` arguments are virtual seconds and never decrease."""

    __slots__ = (
        "_batch_cap", "_boundary_s", "_ends", "_next_end", "_pace_s", "_places", "_slowdown", "_step_s", "_steps",
        "_was_slow", "due_s", "hopeless", "running", "running_places", "version", "waiting",
    )  # fmt: skip

    def __init__(self, step_s: Sequence[float], batch_cap: int) -> None:
        self._step_s = [step_time(step_s, size) for size in range(batch_cap + 1)]
        self._batch_cap = batch_cap
        self._slowdown = 1.0
        self._was_slow = False
        self._clear()
        self.version = 0

    def _clear(self) -> None:
        self.running: list[SimulatedJob] = []
        self.waiting: list[SimulatedJob] = []
        self.hopeless: list[SimulatedJob] = []  # ended early, and not taken from here yet
        self.due_s = inf
        self._boundary_s = 0.0  # a step boundary; it lies in the future while a new request waits for it
        self._steps = 0  # steps done at `_boundary_s`
        self._ends = 0.0  # sum of `ends_at_step * step_cost` over `running`
        self._places = 0.0  # sum of `step_cost` over `running`
        self._pace_s = 0.0  # seconds of a step after `_boundary_s`
        self._next_end = 0  # the least `ends_at_step` of `running`
        self.running_places = 0  # of the batch, rounded up

    @property
    def waiting_places(self) -> int:
        return ceil(sum([job.step_cost for job in self.waiting]) - ROUNDING) if self.waiting else 0

    @property
    def in_flight(self) -> int:
        return self.running_places + self.waiting_places

    @property
    def expected_step_s(self) -> float:
        """The measured time of a step of the present batch, without the slowdown; 0 when idle."""
        return self._step_of_batch() if self.running else 0.0

    def _step_of_batch(self) -> float:
        places, measured = self.running_places, self._step_s
        return measured[places] if places < len(measured) else step_time(measured[1:], places)

    def steps_done(self, now_s: float) -> int:
        """The number of steps that have ended by now."""
        if not self.running or now_s <= self._boundary_s:
            return self._steps
        return self._steps + floor((now_s - self._boundary_s) / self._pace_s + ROUNDING)

    def steps_left(self, done: int) -> int:
        """Denoising steps owed to running and waiting requests, in steps of the default size, once so many are done."""
        owed = self._ends - self._places * done
        return round(owed + sum([job.steps * job.step_cost for job in self.waiting]) if self.waiting else owed)

    def longest_step_s(self, done: int) -> float:
        """What the deadlines of those that run here bear, once so many steps are done."""
        if not self.running:
            return inf
        pace_s = self._pace_s
        ended_s = self._boundary_s + (done - self._steps) * pace_s  # the last boundary, or the one to come
        return min([borne_step_s(job.due_s - ended_s, job.ends_at_step - done, pace_s) for job in self.running])

    def join(self, job: SimulatedJob, now_s: float) -> None:
        """Add a request to the batch at the next boundary, or to the waiting ones if the batch is full."""
        if not self._has_room:
            self.waiting.append(job)
            return
        self._to_boundary(now_s)
        self._admit(job)
        self._rate()

    def finish_due(self) -> list[SimulatedJob]:
        """Remove the requests that end at `due_s`, which is now, and let waiting ones take their slots."""
        self._steps += self._steps_to_due()
        self._boundary_s = self.due_s
        done = [job for job in self.running if job.ends_at_step == self._steps]
        self._leave(done)
        self._fill()
        return done

    def drop(self, request: int, now_s: float) -> None:
        """Remove a request, if it is here, because its client gave up. Its slot is free at the next boundary."""
        self.waiting = [job for job in self.waiting if job.request != request]
        dropped = [job for job in self.running if job.request == request]
        if dropped:
            self._to_boundary(now_s)  # a step cannot be stopped in the middle
            self._leave(dropped)
            self._fill()

    def slow_down(self, factor: float, now_s: float) -> None:
        """From the next boundary on, a step takes `factor` times its measured time."""
        self._to_boundary(now_s)
        self._slowdown = factor
        self._was_slow = True
        self._fill()

    def take_hopeless(self) -> list[SimulatedJob]:
        """Those that left because they could not be in time any more."""
        hopeless, self.hopeless = self.hopeless, []
        return hopeless

    def die(self) -> list[SimulatedJob]:
        """Lose all requests, and return them."""
        lost = self.running + self.waiting
        self._clear()
        self.version += 1
        return lost

    @property
    def _has_room(self) -> bool:
        return self._places < self._batch_cap - ROUNDING

    def _leave(self, jobs: Sequence[SimulatedJob]) -> None:
        self.running = [job for job in self.running if job not in jobs]
        for job in jobs:
            self._ends -= job.ends_at_step * job.step_cost
            self._places -= job.step_cost
        if not self.running:
            self._ends = self._places = 0.0  # what rounding left

    def _fill(self) -> None:
        self._take_waiting()
        self._rate()

    def _take_waiting(self) -> None:
        while self.waiting and self._has_room:
            self._admit(self.waiting.pop(0))

    def _admit(self, job: SimulatedJob) -> None:
        job.ends_at_step = self._steps + job.steps
        self._ends += job.ends_at_step * job.step_cost
        self._places += job.step_cost
        self.running.append(job)

    def _to_boundary(self, now_s: float) -> None:
        """Advance to the first boundary that is not before now."""
        if not self.running:
            self._boundary_s = now_s
        elif now_s > self._boundary_s:
            steps = min(ceil((now_s - self._boundary_s) / self._pace_s - ROUNDING), self._steps_to_due())
            self._steps += steps
            self._boundary_s += steps * self._pace_s

    def _steps_to_due(self) -> int:
        return self._next_end - self._steps

    def _give_way(self) -> None:
        """Who cannot be in time any more leaves; the others run as the live loop chooses."""
        for job in self.running:
            job.steps = job.ends_at_step - self._steps
        hopeless = [job for job in self.running + self.waiting if self._is_hopeless(job)]
        self._leave([job for job in hopeless if job in self.running])
        self.waiting = [job for job in self.waiting if job not in hopeless]
        self.hopeless += hopeless
        self._take_waiting()
        jobs, step_s = self.running + self.waiting, [self._slowdown * one_s for one_s in self._step_s[1:]]
        chosen = choose_running([self._owed(job) for job in jobs], len(self.running), step_s, self._batch_cap)
        if chosen is not None:
            self._leave(self.running)
            for at in chosen:
                self._admit(jobs[at])
            self.waiting = [job for job in jobs if job not in self.running]

    def _is_hopeless(self, job: SimulatedJob) -> bool:
        return is_hopeless(self._owed(job), self._step_s[1] * job.step_cost)

    def _owed(self, job: SimulatedJob) -> OwedInPlaces:
        return OwedInPlaces(job.due_s - self._boundary_s, job.steps, job.step_cost)

    def _rate(self) -> None:
        """Compute the time of a step of the present batch, and when its next request ends."""
        if self._was_slow:
            self._give_way()
        self.version += 1
        self.running_places = ceil(self._places - ROUNDING)
        self._pace_s = self._step_of_batch() * self._slowdown
        self.due_s = inf
        if self.running:
            self._next_end = min([job.ends_at_step for job in self.running])
            self.due_s = self._boundary_s + self._steps_to_due() * self._pace_s
