"""Step times on a device that works behind the CPU; its events are played."""

from dataclasses import dataclass, field
from typing import Any

import torch

from t2i_worker.engine.step_timer import ClockTimer, EventTimer, StepTook, timer_for


@dataclass
class PlayedDevice:
    """Each step takes 40 ms on the device, and 1 ms to launch. `waits` are the steps that the CPU waited for."""

    now_ms: float = 0.0
    events: int = 0
    waits: list[int] = field(default_factory=list)

    def make_event(self) -> "PlayedEvent":
        return PlayedEvent(self)


@dataclass
class PlayedEvent:
    device: PlayedDevice
    at_ms: float = 0.0
    step: int = 0

    def record(self) -> None:
        self.device.events += 1
        self.step = self.device.events // 2
        if self.device.events % 2 == 0:
            self.device.now_ms += 40
        self.at_ms = self.device.now_ms

    def synchronize(self) -> None:
        self.device.waits.append(self.step)

    def elapsed_time(self, other: "PlayedEvent") -> float:
        return other.at_ms - self.at_ms


def test_steps_are_timed_on_the_device_one_step_later() -> None:
    """The time belongs to the batch that ran, and the CPU is never more than one step ahead."""
    device = PlayedDevice()
    timer = EventTimer(device.make_event)
    known: list[Any] = []
    for size in (1, 4, 0, 2):
        timer.begin()
        known.append(list(timer.end({1.0: size} if size else {})))
    assert known == [[], [StepTook({1.0: 1}, 0.04)], [StepTook({1.0: 4}, 0.04)], []]
    assert device.waits == [1, 2, 3]


def test_steps_of_a_cpu_are_timed_by_the_clock() -> None:
    """A step in which a request failed says nothing."""
    times = iter([1.0, 3.5, 10.0])
    timer = timer_for(torch.device("cpu"), lambda: next(times))
    assert isinstance(timer, ClockTimer)
    timer.begin()
    assert timer.end({1.0: 2}) == [StepTook({1.0: 2}, 2.5)]
    timer.begin()
    assert timer.end({}) == []
