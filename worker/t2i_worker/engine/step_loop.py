"""The step loop: one thread owns the device and runs the denoiser for all running requests, step by step.

Each request runs a stock pipeline in a thread of its own. When that calls the denoiser, the call is posted here and
the thread sleeps. A boundary is when every running request has posted. Then the loop

1. drops requests that were cancelled, are out of time or cannot be in time any more,
2. admits waiting requests while a place of the batch is free; background requests make way for others,
   and where steps became too long for all some of them give way (`giving_way`),
3. runs the posted calls, those of equal signature in one forward, as far as their size's own cap allows,
4. gives each request its answer and its turn: to apply its own noise scheduler and to post its next call,
5. hands the events out.

Requests join and leave between steps, as Orca's iteration-level scheduling does for text (OSDI '22). Turns go round one
by one: threads that all want Python at once would spend their time on taking its lock from each other.

Failures: out of memory halves the batch cap. The surplus goes back to the head of the queue without losing steps. The
cap grows again after a while. After any other failure each request runs alone, so that only the one that causes it
fails. A lost device ends the loop, and so does a bug in the loop itself. All requests then fail, and `lost` holds the
error.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate
from typing import Any

import torch

from t2i_policy.readiness import ReadyReason
from t2i_worker.device_errors import free_memory, is_device_lost
from t2i_worker.engine.batching import BatchCap, StepTimes, WarmUpTimes
from t2i_worker.engine.giving_way import GivingWay
from t2i_worker.engine.loop_state import LoopState, counts_of, loop_state
from t2i_worker.engine.meeting import DenoiserCall
from t2i_worker.engine.request import Deliveries, Left, RunningRequest, StepDone, StepEntered, StepEvent
from t2i_worker.engine.shared_forward import ForwardFailure, shared_forward
from t2i_worker.engine.step_timer import timer_for
from t2i_worker.engine.waiting_line import WaitingLine
from t2i_worker.errors import BudgetSpent, EngineLost, JobFailed, OutOfMemory, WorkerDraining, WorkerError
from t2i_worker.jobs import Tally
from t2i_worker.pipelines import Denoiser

log = logging.getLogger(__name__)


class StepLoop:
    """The loop's thread calls `deliver_all` with the events of a step; with none when a request only left."""

    def __init__(
        self,
        denoiser: Denoiser,
        times: WarmUpTimes,
        deliver_all: Callable[[Deliveries], None],
        tally: Tally,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._denoiser = denoiser
        self._cap = BatchCap(times.batch_cap)
        self._times = StepTimes(times)
        self._giving_way = GivingWay(times)
        self._calls_per_step = times.calls_per_step
        self._deliver_all = deliver_all
        self._tally = tally
        self._clock = clock
        self._condition = threading.Condition()
        self._line = WaitingLine()
        self._running: list[RunningRequest] = []
        self._turns: deque[RunningRequest] = deque()  # who gets its answer next
        self._holder: RunningRequest | None = None  # whose turn it is
        self._events: list[tuple[RunningRequest, StepEvent]] = []
        self._dropped = False  # a cancelled request left: it gets no event, but the load has changed
        self._stopping = False
        self._step_began_s: float | None = None
        self._timer = timer_for(denoiser.device, clock)
        self.lost: EngineLost | None = None
        self._num_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="denoise", daemon=True)

    def start(self) -> None:
        self._thread.start()

    # What the threads of requests call.

    def meet(self, request: RunningRequest, call: DenoiserCall) -> Any:
        """Post a call of the denoiser and wait for its output. The first call joins at a boundary with room.

        Raises:
            Left: the request was cancelled.
            WorkerError: its budget is spent, it failed, or the loop has stopped.
        """
        with self._condition:
            self.raise_if_over(request)
            request.call = call
            joins = request not in self._running
            if joins:
                self._line.add(request)
            self._give_turn_on(request)
            if joins or self._holder is None:  # as long as turns go round, waking the loop would only take time
                self._condition.notify_all()
        request.turn.acquire()
        answer, request.answer = request.answer, None
        if isinstance(answer, Exception):
            try:
                raise answer
            finally:
                del answer  # its traceback has this frame, so both would wait for the garbage collector, with the run
        return answer

    def raise_if_over(self, request: RunningRequest) -> None:
        """Raises:
        Left: the request was cancelled before it joined.
        WorkerDraining, EngineLost: the loop has stopped.
        """
        if self.lost is not None:
            raise self.lost
        if self._stopping:
            raise WorkerDraining("the worker is shutting down")
        if request.cancelled and request.joined_s is None:
            self._tally.cancelled += 1
            raise Left

    def step_done(self, request: RunningRequest, done: StepDone) -> None:
        """The request's noise scheduler made a step. After the last one its place is free."""
        with self._condition:
            request.step = done.step
            if done.is_forecast:
                self._tally.steps_forecast += 1
            else:
                self._tally.steps_run += 1
            self._events.append((request, done))
            if request.steps_left <= 0:
                self._remove(request)
        if request.steps_left <= 0:
            self._hand_out()

    def leave(self, request: RunningRequest) -> None:
        """The request needs no more steps, for whatever reason. Any number of calls is fine."""
        with self._condition:
            self._remove(request)

    # What other threads call.

    def cancel(self, request: RunningRequest) -> None:
        """Drop a request at the next boundary; it gets no more events. Ended and unknown requests are fine."""
        request.cancelled = True
        with self._condition:
            self._condition.notify_all()

    def abandon(self, error: EngineLost) -> None:
        """End the loop and fail all requests, because another thread found the device lost."""
        with self._condition:
            self.lost = self.lost or error
            self._condition.notify_all()

    def stop(self, timeout_s: float) -> None:
        """End the thread; requests that are left fail with WorkerDraining."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join(timeout_s)

    @contextmanager
    def foreground(self) -> Iterator[None]:
        """Within it a request is there, or on its way, that background requests make way for."""
        with self._condition:
            self._line.foreground += 1
        try:
            yield
        finally:
            with self._condition:
                self._line.foreground -= 1
                self._condition.notify_all()

    @property
    def state(self) -> LoopState:
        with self._condition:
            return loop_state(self._running, self._line, self._cap.now, times=self._times, now_s=self._clock())

    @property
    def step_age_s(self) -> float:
        """Seconds that the present step has run; 0 between steps."""
        began_s = self._step_began_s
        return 0.0 if began_s is None else self._clock() - began_s

    # The loop's own thread.

    def _run(self) -> None:
        torch.set_num_threads(self._num_threads)  # torch keeps this setting per thread
        try:
            with torch.inference_mode():
                while self._wait_for_work():
                    self._pass_boundary()
                    self._hand_out()  # a request hears that it joined before the step runs
                    if self._running:
                        self._run_step()
                    self._hand_out()
        except EngineLost as error:
            self.lost = error
        except Exception as error:
            if is_device_lost(error, self._denoiser.device):
                self.lost = EngineLost("the worker's device failed", ReadyReason.DEVICE_LOST)
            log.exception("the denoise thread ended")
        finally:
            self._end_all()

    def _wait_for_work(self) -> bool:
        with self._condition:
            self._condition.wait_for(lambda: self._over or self._running or self._line.wants_a_boundary)
            return not self._over

    @property
    def _over(self) -> bool:
        return self._stopping or self.lost is not None

    def _pass_boundary(self) -> None:
        now_s = self._clock()
        with self._condition:
            self._running = [request for request in self._running if self._goes_on(request, now_s)]
            self._line.keep(lambda request: self._goes_on(request, now_s))
            self._cap.grow(now_s)
            choose = partial(self._giving_way.choose, batch_cap=self._cap.now, now_s=now_s)
            self._running = self._line.next_batch(self._running, self._cap.now, choose)
            for request in self._running:
                if request.joined_s is None:
                    request.joined_s = now_s
                    self._events.append((request, StepEntered(len(self._running))))

    def _goes_on(self, request: RunningRequest, now_s: float) -> bool:
        if request.cancelled:
            self._tally.cancelled += 1
            self._dropped = True
            self._dismiss(request, Left())
            return False
        if request.deadline_s is not None and now_s >= request.deadline_s:
            done = request.step if request.joined_s is not None else 0
            message = f"the budget ran out after {done} of {request.num_steps} steps"
            self._dismiss(request, BudgetSpent(message))
            return False
        if self._giving_way.is_hopeless(request, now_s):
            message = f"what is left of the budget is too short for {request.steps_left} of {request.num_steps} steps"
            self._dismiss(request, BudgetSpent(message))
            return False
        return True

    def _run_step(self) -> None:
        self._step_began_s = self._clock()
        self._timer.begin()
        batch = tuple(self._running)
        answered = [request for group in self._groups(batch) for request in self._answer(group)]
        self._let_turns_go_round(answered)
        # Load tells nothing of background requests, so their steps teach nothing either.
        tells = len(answered) == len(batch) and not batch[0].background
        for step in self._timer.end(counts_of(batch) if tells else {}):
            self._learn_step_time(step.counts, step.seconds)
        self._step_began_s = None

    def _groups(self, batch: Iterable[RunningRequest]) -> Iterator[Sequence[RunningRequest]]:
        """Requests of equal signature, and so of one size, in parts that the size's own cap allows."""
        groups: dict[Any, list[RunningRequest]] = {}
        for request in batch:
            if request.call is not None:  # it always is at a boundary
                groups.setdefault(request.call.signature, []).append(request)
        for group in groups.values():
            most = max(1, self._times.cap(group[0].step_cost) * self._cap.now // self._cap.full)
            for first in range(0, len(group), most):
                yield group[first : first + most]

    def _answer(self, group: Sequence[RunningRequest]) -> Sequence[RunningRequest]:
        """Run one forward for the group; returns those that have their output."""
        calls = [request.call for request in group if request.call is not None]
        outputs = shared_forward(self._denoiser, calls)
        if isinstance(outputs, ForwardFailure):
            return self._recover(group, outputs)
        for request, output in zip(group, outputs, strict=True):
            request.answer = output
        self._tally.batch_sizes[len(group)] = self._tally.batch_sizes.get(len(group), 0) + 1
        return group

    def _recover(self, group: Sequence[RunningRequest], failure: ForwardFailure) -> Sequence[RunningRequest]:
        if failure.lost:
            raise EngineLost("the worker's device failed", ReadyReason.DEVICE_LOST)
        if failure.out_of_memory:
            self._tally.out_of_memory += 1
            free_memory()
        if len(group) == 1:
            self._fail(group[0], failure)
            return ()
        if failure.out_of_memory:
            self._shrink(group)
            return ()
        log.warning("a shared step failed (%s); trying its %d requests one by one", failure.place, len(group))
        return [done for request in group for done in self._answer((request,))]

    def _shrink(self, group: Sequence[RunningRequest]) -> None:
        with self._condition:
            failed = round(len(group) * self._cap.full / self._times.cap(group[0].step_cost))
            cap = self._cap.halve(failed, self._clock())
            before = accumulate((request.step_cost for request in self._running), initial=0.0)
            beyond = [request for request, places in zip(self._running, before, strict=False) if places >= cap]
            surplus = [request for request in beyond if request in group]
            self._running = [request for request in self._running if request not in surplus]
            self._line.put_back(surplus)
        log.warning("out of memory at batch size %d: the cap is %d for now", len(group), cap)

    def _fail(self, request: RunningRequest, failure: ForwardFailure) -> None:
        log.warning("one request failed: %s", failure.place)
        error = JobFailed("the model failed on this request")
        if failure.out_of_memory:
            error = OutOfMemory("the request does not fit into memory even alone")
        with self._condition:
            self._running.remove(request)
            self._dismiss(request, error)

    def _let_turns_go_round(self, answered: Sequence[RunningRequest]) -> None:
        """Return when each of them has posted its next call or left."""
        with self._condition:
            for request in answered:
                request.call = None
            self._turns.extend(answered)
            self._next_turn()
            self._condition.wait_for(lambda: self._holder is None or self._over)

    def _next_turn(self) -> None:
        self._holder = self._turns.popleft() if self._turns else None
        if self._holder is not None:
            self._holder.turn.release()

    def _give_turn_on(self, request: RunningRequest) -> None:
        if self._holder is request:
            self._next_turn()

    def _remove(self, request: RunningRequest) -> None:
        if request in self._running:
            self._running.remove(request)
            request.denoised_s = self._clock()
        self._give_turn_on(request)
        self._condition.notify_all()

    @staticmethod
    def _dismiss(request: RunningRequest, error: WorkerError | Left) -> None:
        """Wake a request that waits for an answer with an error instead."""
        request.call, request.answer = None, error
        request.turn.release()

    def _learn_step_time(self, counts: Mapping[float, int], took_s: float) -> None:
        """Count the forward beside the average time of such a batch; where it has one size, update that average."""
        self._tally.steps_took_s += took_s
        self._tally.steps_usual_s += self._times.usual_s(counts) / self._calls_per_step
        self._giving_way.learn(counts, took_s * self._calls_per_step)
        if len(counts) == 1:
            ((step_cost, count),) = counts.items()
            self._times.learn(step_cost, count, took_s * self._calls_per_step)

    def _hand_out(self) -> None:
        with self._condition:
            events, self._events = self._events, []
            dropped, self._dropped = self._dropped, False
            if events or dropped:
                self._deliver_all(events)  # under the lock, so that events of two threads keep their order

    def _end_all(self) -> None:
        with self._condition:
            if not self._stopping and self.lost is None:
                self.lost = EngineLost("the worker's denoise thread ended", ReadyReason.LOOP_ENDED)
            self._stopping = True
            error = self.lost or WorkerDraining("the worker is shutting down")
            for request in (*self._running, *self._line):
                if request.call is not None:
                    self._dismiss(request, error)
            # Answered requests go on to their next call, which is refused.
            while self._turns:
                self._turns.popleft().turn.release()
            self._line.clear()
            self._running, self._holder = [], None
            self._dropped = True  # watchers of the load must hear that the loop ended, even without requests
        self._hand_out()
