"""A device that becomes several times slower under a burst: as many images as can be are in time, in the real loop.

Time is virtual: it passes in the model's forwards alone.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from scripted_model import ScriptedModel, result
from t2i_worker.errors import BudgetSpent

STEPS, CAP = 40, 10
CPU_S = tuple(0.02 + 0.08 * size for size in range(1, CAP + 1))  # each request of a batch adds its time
GPU_S = tuple(0.1 + 0.0001 * size for size in range(1, CAP + 1))  # a batch takes hardly longer than one alone


class SlowedDevice:
    """Seconds of a step by batch size; from the forward `slow_from` until `slow_until` it takes `factor` times that."""

    def __init__(self, step_s: Sequence[float], factor: float, slow_from: int = 4, slow_until: int = 1 << 30) -> None:
        self.now_s = 0.0
        self.model = ScriptedModel(permits=1 << 30, breaks=self._take_time)
        self._step_s, self._factor = step_s, factor
        self._slow = range(slow_from, slow_until)

    def clock(self) -> float:
        return self.now_s

    def _take_time(self, weights: list[int]) -> None:
        slow = len(self.model.batches) in self._slow
        self.now_s += self._step_s[len(weights) - 1] * (self._factor if slow else 1.0)


def draw(listen: Callable[..., Any], device: SlowedDevice, requests: Sequence[Any]) -> list[Any]:
    """Post all at once and run them to their ends; those that are in time."""
    listening = listen(device.model, CAP, device.clock, device._step_s)
    listening.post(*requests)
    listening.loop.start()
    listening.wait_for_end(*requests)
    for one in requests:
        assert one.error is None or isinstance(one.error, BudgetSpent)
        assert one.error is not None or one.latent == result(int(one.weight), STEPS), "no step is lost or run twice"
    return [one for one in requests if one.error is None]


def burst(scripted: Any, deadline_s: float, count: int = CAP) -> list[Any]:
    return [scripted(weight, STEPS, deadline_s=deadline_s) for weight in range(1, count + 1)]


def test_as_many_as_can_be_are_in_time(listen: Callable[..., Any], scripted: Any) -> None:
    """At four times the step all ten would be late, and eight or so are. Two share a step of 0.72 s then."""
    device = SlowedDevice(CPU_S, 4.0)
    assert len(draw(listen, device, burst(scripted, deadline_s=1.2 * STEPS * CPU_S[-1]))) == 2


def test_nobody_gives_way_where_a_batch_takes_no_longer(listen: Callable[..., Any], scripted: Any) -> None:
    """On a large GPU fewer requests are no quicker: one late step all share, and they miss by so little together."""
    device = SlowedDevice(GPU_S, 1.3, slow_from=1)
    draw(listen, device, burst(scripted, deadline_s=1.1 * STEPS * GPU_S[-1]))
    assert {len(batch) for batch in device.model.batches} == {CAP}


def test_those_that_gave_way_are_in_time_if_the_device_recovers(listen: Callable[..., Any], scripted: Any) -> None:
    """A slow phase ends nobody, whatever it lasted, while quick steps could still make it."""
    device = SlowedDevice(CPU_S, 4.0, slow_from=4, slow_until=9)
    in_time = draw(listen, device, burst(scripted, deadline_s=STEPS * CPU_S[-1] + 14.0))
    assert len(in_time) == CAP


def test_who_cannot_be_in_time_any_more_ends_early(listen: Callable[..., Any], scripted: Any) -> None:
    """Its client hears it while there is time for something else."""
    requests = burst(scripted, deadline_s=1.2 * STEPS * CPU_S[-1])
    draw(listen, SlowedDevice(CPU_S, 4.0), requests)
    assert sum("too short" in str(one.error) for one in requests) == CAP - 2


def test_one_step_that_was_held_up_changes_nothing(listen: Callable[..., Any], scripted: Any) -> None:
    """A collection of garbage, or a moment without the device, says nothing of the steps to come."""
    device = SlowedDevice(CPU_S, 20.0, slow_from=4, slow_until=5)
    draw(listen, device, burst(scripted, deadline_s=(STEPS + 20) * CPU_S[-1]))
    assert {len(batch) for batch in device.model.batches} == {CAP}


@pytest.mark.parametrize("factor", [1.0, 1.05])
def test_nobody_gives_way_on_a_device_that_keeps_its_pace(
    factor: float, listen: Callable[..., Any], scripted: Any
) -> None:
    """Noise of a few percent is none of this."""
    device = SlowedDevice(CPU_S, factor, slow_from=1)
    draw(listen, device, burst(scripted, deadline_s=1.06 * STEPS * CPU_S[-1]))
    assert {len(batch) for batch in device.model.batches} == {CAP}
