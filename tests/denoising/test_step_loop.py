"""The step loop on a scripted model (tensor arithmetic): who runs when, and who is hurt when something breaks."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from scripted_model import ScriptedModel, result
from t2i_policy.readiness import ReadyReason
from t2i_worker.engine.batching import GROW_AFTER_S
from t2i_worker.engine.request import Left, StepDone, StepEntered
from t2i_worker.engine.step_timer import ClockTimer, StepTook
from t2i_worker.errors import BudgetSpent, EngineLost, JobFailed, OutOfMemory, WorkerDraining

WAIT_S = 60.0
Listen = Callable[..., Any]


def run(listening: Any, *requests: Any) -> None:
    listening.post(*requests)
    listening.loop.start()
    listening.wait_for_end(*requests)


def test_requests_join_at_step_boundaries_up_to_cap(listen: Listen, scripted: Any) -> None:
    """The second joins after the first one's first step, the third when a slot is free, without waiting for all."""
    model = ScriptedModel(permits=0)
    listening = listen(model, 2)
    first, second, third = scripted(1), scripted(2), scripted(3)
    listening.post(first)
    listening.loop.start()
    model.wait_until_in_step(1)
    assert listening.events(first) == [StepEntered(1)]  # heard before the step: its time can be judged
    listening.post(second)
    listening.post(third)
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
    assert [one.latent for one in (first, second, third)] == [result(1), result(2), result(3)]
    assert (listening.tally.steps_run, listening.tally.batch_sizes) == (9, {1: 3, 2: 3})


def test_steps_are_counted_against_the_measurement_that_they_met(listen: Listen, scripted: Any) -> None:
    """Gateways compare both sums: a slow step must not excuse itself by what it teaches."""
    listening = listen(ScriptedModel(), 1)
    (usual_s,) = listening.loop.state.step_s
    listening.loop._learn_step_time({1.0: 1}, 10 * usual_s)
    assert (listening.tally.steps_took_s, listening.tally.steps_usual_s) == (10 * usual_s, usual_s)


def test_few_slow_steps_teach_little(listen: Listen, scripted: Any) -> None:
    """Who judges the worker by its own average must see that it is slow; one that stays slow is believed in the end."""
    loop = listen(ScriptedModel(), 1).loop
    (usual_s,) = loop.state.step_s
    for _ in range(3):
        loop._learn_step_time({1.0: 1}, 10 * usual_s)
    assert loop.state.step_s[0] < 1.2 * usual_s
    for _ in range(60):
        loop._learn_step_time({1.0: 1}, 10 * usual_s)
    assert loop.state.step_s[0] > 8 * usual_s


def test_events_of_one_request_in_order(listen: Listen, scripted: Any) -> None:
    """Entered, then each step once."""
    listening = listen(ScriptedModel(), 1)
    one = scripted(1, steps=4)
    run(listening, one)
    assert listening.events(one) == [StepEntered(1), *(StepDone(step, None) for step in (1, 2, 3, 4))]


def test_cancelled_request_frees_slot_within_one_step(listen: Listen, scripted: Any) -> None:
    """Cancelled inside its second step: the next forward is the waiting one's."""
    model = ScriptedModel(permits=1)
    listening = listen(model, 1)
    leaving, waiting = scripted(1, steps=50), scripted(2)
    listening.post(leaving)
    listening.post(waiting)
    listening.loop.start()
    model.wait_until_in_step(2)
    listening.loop.cancel(leaving.request)
    model.allow()
    listening.wait_for_end(leaving, waiting)
    assert model.batches == [[1], [1], [2], [2], [2]]
    assert listening.tally.cancelled == 1
    assert isinstance(leaving.error, Left)


def test_cancelled_while_waiting_never_runs(listen: Listen, scripted: Any) -> None:
    """A client that left before its turn costs no step."""
    model = ScriptedModel()
    listening = listen(model, 1)
    gone, left_later = scripted(1), scripted(3)
    listening.loop.cancel(gone.request)
    listening.post(gone, left_later)
    listening.loop.cancel(left_later.request)
    run(listening, scripted(2))
    assert model.batches == [[2], [2], [2]]
    assert listening.tally.cancelled == 2
    assert listening.events(gone) == []


def test_deadline_passed_fails_with_deadline_exceeded(listen: Listen, scripted: Any) -> None:
    """Waiting or running, a request out of time gives its slot back at the boundary; the others go on."""
    model = ScriptedModel(permits=1)
    listening = listen(model, 2)
    never, late, in_time = scripted(1, deadline_s=time.monotonic()), scripted(2), scripted(3)
    for one in (never, late, in_time):
        listening.post(one)
    listening.loop.start()
    model.wait_until_in_step(2)
    late.request.deadline_s = time.monotonic()
    model.allow()
    listening.wait_for_end(never, late, in_time)
    assert model.batches == [[2, 3], [2, 3], [3]]
    assert isinstance(never.error, BudgetSpent)
    assert isinstance(late.error, BudgetSpent)
    assert "after 2 of 3 steps" in str(late.error)
    assert in_time.latent == result(3)


def test_stop_fails_what_is_left_with_worker_draining(listen: Listen, scripted: Any) -> None:
    """Nobody waits for ever: running and waiting ones are told, later ones refused."""
    model = ScriptedModel(permits=1)
    listening = listen(model, 1)
    running, waiting = scripted(1, steps=500), scripted(2)
    listening.post(running)
    listening.post(waiting)
    listening.loop.start()
    model.wait_until_in_step(2)
    stopping = threading.Thread(target=listening.loop.stop, args=(WAIT_S,))
    stopping.start()
    model.allow()
    stopping.join(WAIT_S)
    assert not stopping.is_alive()
    listening.wait_for_end(running, waiting)
    assert [type(one.error) for one in (running, waiting)] == [WorkerDraining, WorkerDraining]
    later = scripted(3)
    listening.post(later)
    assert isinstance(later.error, WorkerDraining)


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("can't allocate memory: you tried")],
    ids=["device", "python", "allocator"],
)
@pytest.mark.parametrize(("fitting", "cap", "halvings"), [(2, 2, 1), (1, 1, 2)])
def test_out_of_memory_halves_cap_and_loses_nothing(
    error: Exception, fitting: int, cap: int, halvings: int, listen: Listen, scripted: Any
) -> None:
    """Every request finishes with the right result, in the order they came; the cap stays down."""
    model = ScriptedModel(breaks=lambda weights: error if len(weights) > fitting else None)
    listening = listen(model, 4)
    requests = [scripted(weight) for weight in range(1, 7)]
    run(listening, *requests)
    assert listening.finished() == [one.request for one in requests]
    assert [one.latent for one in requests] == [result(weight) for weight in range(1, 7)]
    assert (listening.loop.state.batch_cap, listening.tally.out_of_memory) == (cap, halvings)
    assert listening.tally.steps_run == 18, "no step is run twice"


def test_out_of_memory_alone_fails_just_it(listen: Listen, scripted: Any) -> None:
    """One request that never fits is told so; those beside it finish."""
    model = ScriptedModel(breaks=lambda weights: MemoryError() if 2 in weights else None)
    listening = listen(model, 4)
    good, bad, later = scripted(1), scripted(2), scripted(3)
    run(listening, good, bad, later)
    assert isinstance(bad.error, OutOfMemory)
    assert (good.latent, later.latent) == (result(1), result(3))


@pytest.mark.parametrize("error", [RuntimeError("bad kernel"), ValueError("bad shape")], ids=["runtime", "value"])
def test_failure_of_shared_step_hits_only_its_cause(error: Exception, listen: Listen, scripted: Any) -> None:
    """The step is tried one by one: the culprit fails, the others keep their results and their cap."""
    listening = listen(ScriptedModel(breaks=lambda weights: error if 2 in weights else None), 4)
    good, bad, other = scripted(1), scripted(2), scripted(3, steps=5)
    run(listening, good, bad, other)
    assert type(bad.error) is JobFailed
    assert "bad" not in str(bad.error), "clients see no internals"
    assert (good.latent, other.latent) == (result(1), result(3, steps=5))
    assert listening.loop.state.batch_cap == 4


def test_failing_noise_scheduler_hits_only_its_request(listen: Listen, scripted: Any) -> None:
    """Schedules are the requests' own, so one that breaks takes nobody along; the loop serves the next."""
    listening = listen(ScriptedModel(), 2)
    good, bad, after = scripted(1), scripted(2, fails_at=1), scripted(3)
    run(listening, good, bad, after)
    assert type(bad.error) is IndexError
    assert (good.latent, after.latent) == (result(1), result(3))
    assert listening.loop.state.running == 0


def test_cap_grows_again_after_a_while(listen: Listen, scripted: Any) -> None:
    """What took the memory may be gone: twice the size is tried again, and later if that was too early."""
    now_s, fits = [0.0], [2]
    model = ScriptedModel(breaks=lambda weights: MemoryError() if len(weights) > fits[0] else None)
    listening = listen(model, 4, lambda: now_s[0])

    def cap_after(seconds: float) -> int:
        now_s[0] += seconds
        four = [scripted(weight) for weight in range(1, 5)]
        listening.post(*four)
        listening.wait_for_end(*four)
        assert [one.latent for one in four] == [result(weight) for weight in range(1, 5)]
        return int(listening.loop.state.batch_cap)

    four = [scripted(weight) for weight in range(1, 5)]
    run(listening, *four)
    assert listening.loop.state.batch_cap == 2
    assert cap_after(GROW_AFTER_S - 1) == 2
    assert listening.tally.out_of_memory == 1
    fits[0] = 4
    assert cap_after(1) == 4


def test_calls_that_differ_do_not_share_a_forward(listen: Listen, scripted: Any) -> None:
    """Another shape or type is another forward of the same step; each gets its own rows."""
    model = ScriptedModel()
    listening = listen(model, 2)
    one, two = scripted(1), scripted(2)
    two.weight = torch.tensor([2.0, 2.0], dtype=torch.float64)
    run(listening, one, two)
    assert model.batches == [[1], [2, 2]] * 3
    assert (one.latent, two.latent) == (result(1), result(2))


def test_device_that_is_lost_while_the_loop_waits_ends_the_engine(
    listen: Listen, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA tells of a fault at the next wait, which is not inside any request's forward."""

    class Lost(ClockTimer):
        def end(self, counts: Mapping[float, int]) -> list[StepTook]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("t2i_worker.engine.step_loop.timer_for", lambda _device, clock: Lost(clock))
    listening = listen(ScriptedModel(), 1)
    request = scripted(1)
    listening.post(request)
    listening.loop.start()
    listening.wait_for_end(request)
    assert isinstance(listening.loop.lost, EngineLost)
    assert listening.loop.lost.reason == ReadyReason.DEVICE_LOST
