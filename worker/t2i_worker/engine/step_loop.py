"""The step loop: one thread owns the device and runs one forward pass a step for all running requests.

At every step boundary the loop

1. drops requests that were cancelled or are out of time,
2. admits waiting requests up to the batch cap,
3. runs one forward pass for the whole batch, each request at its own timestep,
4. applies each request's own noise scheduler,
5. hands the events out.

Requests join and leave between steps, as Orca's iteration-level scheduling does for text (OSDI '22).
Text encoding, decoding, image encoding and cache I/O never run in this thread.

Failures: out of memory halves the batch cap, and the surplus goes back to the head of the queue without losing steps.
After any other failure each request runs alone, so that only the one that causes it fails.
A lost device ends the loop, and so does a bug in the loop itself. All requests then fail, and `lost` holds the error.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from t2i_policy.readiness import ReadyReason
from t2i_worker.device_errors import free_memory, is_device_lost, is_out_of_memory
from t2i_worker.engine.batching import cap_after_out_of_memory, steps_to_place
from t2i_worker.engine.request import (
    Deliveries,
    Denoised,
    RunningRequest,
    StepDone,
    StepEntered,
    StepEvent,
    StepFailed,
)
from t2i_worker.errors import BudgetSpent, EngineLost, JobFailed, OutOfMemory, WorkerDraining, where
from t2i_worker.jobs import Tally
from t2i_worker.pipelines import PipelineAdapter, StackedConditions, stack_conditions

log = logging.getLogger(__name__)
STEP_TIME_WEIGHT = 0.1  # weight of the newest step in the running average of step times
#: A step counts as at most this many averages. Gateways compare a worker with its own average, so a worker that was
#: stopped for a moment must not raise that average at once. One that stays slow raises it within some dozen steps.
MAX_STEP_GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class LoopState:
    """The loop after its last step boundary. `steps_left` sums over running and waiting requests."""

    running: int
    waiting: int
    steps_left: int
    batch_cap: int
    step_s: tuple[float, ...]
    steps_to_place: int = 0  # steps until a request that arrives now could join


class StepLoop:
    """The loop's thread calls `deliver_all` with the events of a step; with none when a request only left."""

    def __init__(
        self,
        adapter: PipelineAdapter,
        batch_cap: int,
        step_s: tuple[float, ...],
        deliver_all: Callable[[Deliveries], None],
        tally: Tally,
    ) -> None:
        self._adapter = adapter
        self._cap = batch_cap
        self._step_s = list(step_s)
        self._deliver_all = deliver_all
        self._tally = tally
        self._condition = threading.Condition()
        self._waiting: deque[RunningRequest] = deque()
        self._running: list[RunningRequest] = []
        self._events: list[tuple[RunningRequest, StepEvent]] = []
        self._stacked: tuple[tuple[RunningRequest, ...], StackedConditions] | None = None
        self._dropped = False  # a cancelled request left: it gets no event, but the load has changed
        self._stopping = False
        self._step_began_s: float | None = None
        self.lost: EngineLost | None = None
        self._num_threads = torch.get_num_threads()
        self._thread = threading.Thread(target=self._run, name="denoise", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, request: RunningRequest) -> None:
        """Queue a prepared request; it joins at the next step boundary where the batch has room.

        Raises:
            WorkerDraining, EngineLost: the loop has stopped.
        """
        with self._condition:
            if self.lost is not None:
                raise self.lost
            if self._stopping:
                raise WorkerDraining("the worker is shutting down")
            self._waiting.append(request)
            self._condition.notify()

    def cancel(self, request: RunningRequest) -> None:
        """Drop a request at the next boundary; it gets no more events. Ended and unknown requests are fine."""
        request.cancelled = True
        with self._condition:
            self._condition.notify()

    def abandon(self, error: EngineLost) -> None:
        """End the loop and fail all requests, because another thread found the device lost."""
        with self._condition:
            self.lost = self.lost or error
            self._condition.notify()

    def stop(self, timeout_s: float) -> None:
        """End the thread; requests that are left fail with WorkerDraining."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        self._thread.join(timeout_s)

    @property
    def state(self) -> LoopState:
        with self._condition:
            requests = [*self._running, *self._waiting]
            left = sum(request.steps_left for request in requests)
            joins_in = steps_to_place([request.steps_left for request in requests], self._cap)
            return LoopState(len(self._running), len(self._waiting), left, self._cap, tuple(self._step_s), joins_in)

    @property
    def step_age_s(self) -> float:
        """Seconds that the present step has run; 0 between steps."""
        began_s = self._step_began_s
        return 0.0 if began_s is None else time.monotonic() - began_s

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
        except Exception:
            log.exception("a bug in the step loop ended the denoise thread")
        finally:
            self._end_all()

    def _wait_for_work(self) -> bool:
        with self._condition:
            while not (self._waiting or self._running or self._stopping or self.lost):
                self._condition.wait()
            return not self._stopping and self.lost is None

    def _pass_boundary(self) -> None:
        now_s = time.monotonic()
        with self._condition:
            self._running = [request for request in self._running if self._goes_on(request, now_s)]
            self._waiting = deque(request for request in self._waiting if self._goes_on(request, now_s))
            while self._waiting and len(self._running) < self._cap:
                self._running.append(self._waiting.popleft())
        for request in self._running:
            if request.joined_s is None:
                request.joined_s = now_s
                self._events.append((request, StepEntered(len(self._running))))

    def _goes_on(self, request: RunningRequest, now_s: float) -> bool:
        if request.cancelled:
            self._tally.cancelled += 1
            self._dropped = True
            return False
        if request.deadline_s is not None and now_s >= request.deadline_s:
            done = request.step if request.joined_s is not None else 0
            message = f"the budget ran out after {done} of {request.num_steps} steps"
            self._events.append((request, StepFailed(BudgetSpent(message))))
            return False
        return True

    def _run_step(self) -> None:
        began_s = self._step_began_s = time.monotonic()
        batch = tuple(self._running)
        try:
            predictions = self._predict(batch)
        except Exception as error:  # noqa: BLE001 - libraries raise anything; the requests get the error
            self._recover(batch, error)
            return
        finally:
            self._step_began_s = None
        self._apply(batch, predictions)
        self._learn_step_time(len(batch), time.monotonic() - began_s)

    def _predict(self, batch: tuple[RunningRequest, ...]) -> Tensor:
        if self._stacked is None or self._stacked[0] != batch:
            self._stacked = (batch, stack_conditions([request.conditions for request in batch]))
        latents = torch.cat([request.model_input() for request in batch])
        timesteps = torch.stack([request.timestep() for request in batch]).to(latents.device)
        return self._adapter.predict(latents, timesteps, self._stacked[1])

    def _apply(self, batch: tuple[RunningRequest, ...], predictions: Tensor) -> None:
        for index, request in enumerate(batch):
            try:
                preview = request.advance(predictions[index : index + 1])
            except Exception as error:  # noqa: BLE001 - as above
                self._fail(request, "the noise scheduler failed on this request", error)
                continue
            self._events.append((request, StepDone(request.step, preview)))
            if request.steps_left == 0:
                self._events.append((request, Denoised(time.monotonic() - (request.joined_s or 0.0))))
        self._running = [request for request in self._running if request.steps_left]
        self._tally.steps_run += len(batch)
        self._tally.batch_sizes[len(batch)] = self._tally.batch_sizes.get(len(batch), 0) + 1

    def _recover(self, batch: tuple[RunningRequest, ...], error: Exception) -> None:
        self._stacked = None
        if len(batch) == 1:
            self._fail(batch[0], "the model failed on this request", error)
        elif is_out_of_memory(error):
            self._shrink(batch)
        else:
            self._raise_if_lost(error, batch[0])
            log.warning("a shared step failed (%s); trying its %d requests one by one", where(error), len(batch))
            for request in batch:
                self._run_alone(request)

    def _run_alone(self, request: RunningRequest) -> None:
        try:
            prediction = self._predict((request,))
        except Exception as error:  # noqa: BLE001 - as above
            self._recover((request,), error)
        else:
            self._apply((request,), prediction)

    def _shrink(self, batch: tuple[RunningRequest, ...]) -> None:
        self._tally.out_of_memory += 1
        free_memory()
        with self._condition:
            self._cap = cap_after_out_of_memory(len(batch))
            surplus, self._running = self._running[self._cap :], self._running[: self._cap]
            self._waiting.extendleft(reversed(surplus))
        log.warning("out of memory at batch size %d: the cap is %d from now on", len(batch), self._cap)

    def _fail(self, request: RunningRequest, message: str, cause: Exception) -> None:
        self._raise_if_lost(cause, request)
        error = JobFailed(message)
        if is_out_of_memory(cause):
            self._tally.out_of_memory += 1
            free_memory()
            error = OutOfMemory("the request does not fit into memory even alone")
        log.warning("one request failed: %s", where(cause))
        self._running = [other for other in self._running if other is not request]
        self._events.append((request, StepFailed(error)))

    @staticmethod
    def _raise_if_lost(error: Exception, request: RunningRequest) -> None:
        if is_device_lost(error, request.latent.device):
            log.critical("the device is lost to this process: %s", error)
            raise EngineLost("the worker's device failed", ReadyReason.DEVICE_LOST) from error

    def _learn_step_time(self, size: int, took_s: float) -> None:
        """Count the step beside the average time at its batch size, then update that average."""
        usual_s = took_s
        if size <= len(self._step_s):
            usual_s = self._step_s[size - 1]
            self._step_s[size - 1] += STEP_TIME_WEIGHT * (min(took_s, MAX_STEP_GROWTH * usual_s) - usual_s)
        self._tally.steps_took_s += took_s
        self._tally.steps_usual_s += usual_s

    def _hand_out(self) -> None:
        if self._events or self._dropped:
            events, self._events, self._dropped = self._events, [], False
            self._deliver_all(events)

    def _end_all(self) -> None:
        with self._condition:
            if not self._stopping and self.lost is None:
                self.lost = EngineLost("the worker's denoise thread ended", ReadyReason.LOOP_ENDED)
            self._stopping = True
            left = [*self._running, *self._waiting]
            self._running, self._waiting = [], deque()
        error = self.lost or WorkerDraining("the worker is shutting down")
        self._events += [(request, StepFailed(error)) for request in left]
        self._dropped = True  # watchers of the load must hear that the loop ended, even without requests
        self._hand_out()
