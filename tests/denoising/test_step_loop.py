"""The step loop on a scripted model (tensor arithmetic): who runs when, and who is hurt when something breaks."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from t2i_worker.engine.request import Denoised, RunningRequest, StepDone, StepEntered, StepFailed
from t2i_worker.errors import BudgetSpent, JobFailed, OutOfMemory, WorkerDraining
from t2i_worker.pipelines import Conditions, StackedConditions

WAIT_S = 30.0
Listen = Callable[..., Any]


class ScriptedModel:
    """Predicts weight * (timestep + 1). Each step waits for a permit; `breaks(weights)` may return what to raise."""

    def __init__(self, permits: int = 1000, breaks: Callable[[list[int]], Exception | None] | None = None) -> None:
        self.batches: list[list[int]] = []
        self._permits = permits
        self._breaks = breaks or (lambda _: None)
        self._condition = threading.Condition()

    def predict(self, latents: Tensor, timesteps: Tensor, conditions: StackedConditions) -> Tensor:
        weights = conditions.inputs["weight"]
        with self._condition:
            self.batches.append([int(weight) for weight in weights])
            self._condition.notify_all()
            assert self._condition.wait_for(lambda: self._permits > 0, WAIT_S)
            self._permits -= 1
        if (error := self._breaks(self.batches[-1])) is not None:
            raise error
        assert len(latents) == len(timesteps) == len(weights)
        return weights.view(-1, 1) * (timesteps.view(-1, 1) + 1)

    def allow(self, steps: int = 1000) -> None:
        with self._condition:
            self._permits += steps
            self._condition.notify_all()

    def wait_until_in_step(self, number: int) -> None:
        """Return when the model is inside its `number`-th forward, counted from 1."""
        with self._condition:
            assert self._condition.wait_for(lambda: len(self.batches) >= number, WAIT_S)


class ScriptedSchedule:
    """Timesteps 0, 1, 2, ...; the latent adds up predictions. Fails at step `fails_at`."""

    initial_scale = 1.0

    def __init__(self, steps: int, fails_at: int = -1) -> None:
        self.timesteps = torch.arange(steps, dtype=torch.float32)
        self._fails_at = fails_at

    def model_input(self, latent: Tensor, step: int) -> Tensor:
        return latent

    def advance(self, prediction: Tensor, latent: Tensor, step: int) -> Tensor:
        if step == self._fails_at:
            raise IndexError("no such step")
        return latent + prediction

    def clean_estimate(self, prediction: Tensor, latent: Tensor, step: int) -> Tensor:
        return latent + 100 * prediction


def request(weight: int, steps: int = 3, fails_at: int = -1, **options: Any) -> RunningRequest:
    conditions = Conditions({"weight": torch.tensor([float(weight)])}, None, 1.0)
    schedule: Any = ScriptedSchedule(steps, fails_at)
    return RunningRequest(torch.zeros(1, 1), 0, steps, schedule, conditions, lambda _: None, **options)


def result(weight: int, steps: int = 3) -> float:
    return float(weight * sum(range(1, steps + 1)))


def run(listening: Any, *requests: RunningRequest) -> None:
    for one in requests:
        listening.loop.submit(one)
    listening.loop.start()
    listening.wait_for_end(*requests)


def failure(listening: Any, one: RunningRequest) -> Exception | None:
    last = listening.events(one)[-1]
    return last.error if isinstance(last, StepFailed) else None


def test_requests_join_at_step_boundaries_up_to_cap(listen: Listen) -> None:
    """The second joins after the first one's first step, the third when a slot is free, without waiting for all."""
    model = ScriptedModel(permits=0)
    listening = listen(model, 2)
    first, second, third = request(1), request(2), request(3)
    listening.loop.submit(first)
    listening.loop.start()
    model.wait_until_in_step(1)
    assert listening.events(first) == [StepEntered(1)]  # heard before the step: its time can be judged
    listening.loop.submit(second)
    listening.loop.submit(third)
    state = listening.loop.state
    assert (state.running, state.waiting, state.steps_left) == (1, 2, 9)
    model.allow()
    listening.wait_for_end(first, second, third)
    assert model.batches == [[1], [1, 2], [1, 2], [2, 3], [3], [3]]
    assert [listening.events(one)[0] for one in (first, second, third)] == [
        StepEntered(1),
        StepEntered(2),
        StepEntered(2),
    ]
    assert [float(one.latent) for one in (first, second, third)] == [result(1), result(2), result(3)]
    assert (listening.tally.steps_run, listening.tally.batch_sizes) == (9, {1: 3, 2: 3})


def test_steps_are_counted_against_the_measurement_that_they_met(listen: Listen) -> None:
    """Gateways compare both sums: a slow step must not excuse itself by what it teaches."""
    listening = listen(ScriptedModel(), 1)
    (usual_s,) = listening.loop.state.step_s
    listening.loop._learn_step_time(1, 10 * usual_s)
    assert (listening.tally.steps_took_s, listening.tally.steps_usual_s) == (10 * usual_s, usual_s)


def test_few_slow_steps_teach_little(listen: Listen) -> None:
    """Who judges the worker by its own average must see that it is slow; one that stays slow is believed in the end."""
    loop = listen(ScriptedModel(), 1).loop
    (usual_s,) = loop.state.step_s
    for _ in range(3):
        loop._learn_step_time(1, 10 * usual_s)
    assert loop.state.step_s[0] < 1.2 * usual_s
    for _ in range(60):
        loop._learn_step_time(1, 10 * usual_s)
    assert loop.state.step_s[0] > 8 * usual_s


def test_events_of_one_request_in_order(listen: Listen) -> None:
    """Entered, each step once with previews where they are due, done; kept latents are those entering their step."""
    listening = listen(ScriptedModel(), 1)
    one = request(1, steps=4, keep=frozenset({1, 3}), preview_every_steps=2)
    run(listening, one)
    entered, *steps, done = listening.events(one)
    assert (entered, type(done)) == (StepEntered(1), Denoised)
    assert [step.step for step in steps if isinstance(step, StepDone)] == [1, 2, 3, 4]
    assert [step.preview is not None for step in steps] == [False, True, False, False], "the last step needs no preview"
    assert {step: float(latent) for step, latent in one.kept.items()} == {1: 1.0, 3: 6.0}


def test_cancelled_request_frees_slot_within_one_step(listen: Listen) -> None:
    """Cancelled inside its second step: the next forward is the waiting one's."""
    model = ScriptedModel(permits=1)
    listening = listen(model, 1)
    leaving, waiting = request(1, steps=50), request(2)
    listening.loop.submit(leaving)
    listening.loop.submit(waiting)
    listening.loop.start()
    model.wait_until_in_step(2)
    listening.loop.cancel(leaving)
    model.allow()
    listening.wait_for_end(waiting)
    assert model.batches == [[1], [1], [2], [2], [2]]
    assert listening.tally.cancelled == 1
    assert leaving not in listening.ended()


def test_cancelled_while_waiting_never_runs(listen: Listen) -> None:
    """A client that left before its turn costs no step."""
    model = ScriptedModel()
    listening = listen(model, 1)
    gone = request(1)
    listening.loop.cancel(gone)
    listening.loop.submit(gone)
    run(listening, request(2))
    assert model.batches == [[2], [2], [2]]
    assert listening.events(gone) == []


def test_deadline_passed_fails_with_deadline_exceeded(listen: Listen) -> None:
    """Waiting or running, a request out of time gives its slot back at the boundary; the others go on."""
    model = ScriptedModel(permits=1)
    listening = listen(model, 2)
    never, late, in_time = request(1, deadline_s=time.monotonic()), request(2), request(3)
    for one in (never, late, in_time):
        listening.loop.submit(one)
    listening.loop.start()
    model.wait_until_in_step(2)
    late.deadline_s = time.monotonic()
    model.allow()
    listening.wait_for_end(never, late, in_time)
    assert model.batches == [[2, 3], [2, 3], [3]]
    assert isinstance(failure(listening, never), BudgetSpent)
    assert isinstance(failure(listening, late), BudgetSpent)
    assert "after 2 of 3 steps" in str(failure(listening, late))
    assert float(in_time.latent) == result(3)


def test_stop_fails_what_is_left_with_worker_draining(listen: Listen) -> None:
    """Nobody waits for ever: running and waiting ones are told, later ones refused."""
    model = ScriptedModel(permits=1)
    listening = listen(model, 1)
    running, waiting = request(1, steps=500), request(2)
    listening.loop.submit(running)
    listening.loop.submit(waiting)
    listening.loop.start()
    model.wait_until_in_step(2)
    stopping = threading.Thread(target=listening.loop.stop, args=(WAIT_S,))
    stopping.start()
    model.allow()
    stopping.join(WAIT_S)
    assert not stopping.is_alive()
    assert [type(failure(listening, one)) for one in (running, waiting)] == [WorkerDraining, WorkerDraining]
    with pytest.raises(WorkerDraining):
        listening.loop.submit(request(3))


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory: you tried")],
    ids=["device", "python", "allocator"],
)
@pytest.mark.parametrize(("fitting", "cap", "halvings"), [(2, 2, 1), (1, 1, 2)])
def test_out_of_memory_halves_cap_and_loses_nothing(
    error: Exception, fitting: int, cap: int, halvings: int, listen: Listen
) -> None:
    """Every request finishes with the right result, in the order they came; the cap stays down."""
    model = ScriptedModel(breaks=lambda weights: error if len(weights) > fitting else None)
    listening = listen(model, 4)
    requests = [request(weight) for weight in range(1, 7)]
    run(listening, *requests)
    assert listening.ended() == requests
    assert [float(one.latent) for one in requests] == [result(weight) for weight in range(1, 7)]
    assert (listening.loop.state.batch_cap, listening.tally.out_of_memory) == (cap, halvings)
    assert listening.tally.steps_run == 18, "no step is run twice"


def test_out_of_memory_alone_fails_just_it(listen: Listen) -> None:
    """One request that never fits is told so; those beside it finish."""
    model = ScriptedModel(breaks=lambda weights: MemoryError() if 2 in weights else None)
    listening = listen(model, 4)
    good, bad, later = request(1), request(2), request(3)
    run(listening, good, bad, later)
    assert isinstance(failure(listening, bad), OutOfMemory)
    assert (float(good.latent), float(later.latent)) == (result(1), result(3))


@pytest.mark.parametrize("error", [RuntimeError("bad kernel"), ValueError("bad shape")], ids=["runtime", "value"])
def test_failure_of_shared_step_hits_only_its_cause(error: Exception, listen: Listen) -> None:
    """The step is tried one by one: the culprit fails, the others keep their results and their cap."""
    listening = listen(ScriptedModel(breaks=lambda weights: error if 2 in weights else None), 4)
    good, bad, other = request(1), request(2), request(3, steps=5)
    run(listening, good, bad, other)
    assert type(failure(listening, bad)) is JobFailed
    assert "bad" not in str(failure(listening, bad)), "clients see no internals"
    assert (float(good.latent), float(other.latent)) == (result(1), result(3, steps=5))
    assert listening.loop.state.batch_cap == 4


def test_failing_noise_scheduler_hits_only_its_request(listen: Listen) -> None:
    """Schedules are the requests' own, so one that breaks takes nobody along; the loop serves the next."""
    listening = listen(ScriptedModel(), 2)
    good, bad, after = request(1), request(2, fails_at=1), request(3)
    run(listening, good, bad, after)
    assert type(failure(listening, bad)) is JobFailed
    assert (float(good.latent), float(after.latent)) == (result(1), result(3))
    assert listening.loop.state.running == 0
