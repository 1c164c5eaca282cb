"""How long steps take, told when it is known.

On a CPU a step has run when its calls return. CUDA calls return before: the device works behind the CPU, and with CUDA
graphs a whole image could be queued at once. Whoever joins would then wait for all of it. So events time a step on the
device, and the CPU waits until at most AHEAD steps are queued. That always leaves the device one to do.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

AHEAD = 1
Counts = Mapping[float, int]


@dataclass(frozen=True, slots=True)
class StepTook:
    """A step of a batch: how many requests it had, by what their steps cost (see `batching`)."""

    counts: Counts
    seconds: float


class StepTimer(Protocol):
    def begin(self) -> None: ...

    def end(self, counts: Counts) -> Sequence[StepTook]:
        """The step has ended for these requests, none if it says nothing. Returns the steps whose time is known now."""


class ClockTimer:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began_s = 0.0

    def begin(self) -> None:
        self._began_s = self._clock()

    def end(self, counts: Counts) -> Sequence[StepTook]:
        return [StepTook(counts, self._clock() - self._began_s)] if counts else []


@dataclass(frozen=True, slots=True)
class _Marked:
    counts: Counts
    began: Any
    ended: Any


class EventTimer:
    """`make_event` makes events of the device's current stream, as `torch.cuda.Event` does."""

    def __init__(self, make_event: Callable[[], Any]) -> None:
        self._make_event = make_event
        self._queued: deque[_Marked] = deque()
        self._began: Any = None

    def begin(self) -> None:
        self._began = self._recorded()

    def end(self, counts: Counts) -> Sequence[StepTook]:
        self._queued.append(_Marked(counts, self._began, self._recorded()))
        known = []
        while len(self._queued) > AHEAD:
            step = self._queued.popleft()
            step.ended.synchronize()
            if step.counts:
                known.append(StepTook(step.counts, 1e-3 * step.began.elapsed_time(step.ended)))
        return known

    def _recorded(self) -> Any:
        event = self._make_event()
        event.record()
        return event


def timer_for(device: torch.device, clock: Callable[[], float]) -> StepTimer:
    if device.type != "cuda":
        return ClockTimer(clock)

    def make_event() -> Any:
        with torch.cuda.device(device):
            return torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]

    return EventTimer(make_event)
