"""The batch cap: how many requests may share a step.

It is decided from step times measured at warm-up. It is halved when memory runs out, and grows again after a while,
because what took the memory may have been something else. A larger batch is worth it only
while it makes more images a second; beyond that it only delays everyone in it. The cap is never a constant, because
it depends on model, image size and device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MIN_GAIN = 1.03  # factor by which a larger batch must raise throughput
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
GROW_AFTER_S = 60.0
MAX_PAUSE_S = 3600.0


@dataclass(frozen=True, slots=True)
class WarmUpTimes:
    """`step_s[b - 1]` is the time of one step at batch size b, `fixed_s` the time to decode and encode one image.

    A step takes `calls_per_step` calls of the denoiser: families that guide by a second call, and samplers of order 2,
    make two. `latent_bytes` is the size of one latent.
    """

    batch_cap: int
    step_s: tuple[float, ...]
    fixed_s: float
    calls_per_step: float = 1.0
    latent_bytes: int = 0


def choose_batch_cap(step_s: Mapping[int, float]) -> int:
    """Grow from the smallest batch size while each next one raises throughput by MIN_GAIN.

    `step_s` maps measured batch sizes to the seconds of one step; it holds size 1.
    """
    sizes = sorted(step_s)
    cap = sizes[0]
    for size in sizes[1:]:
        if size / step_s[size] < MIN_GAIN * cap / step_s[cap]:
            break  # the device is full: more requests in a step only make it longer
        cap = size
    return cap


def fill_step_times(step_s: Mapping[int, float], cap: int) -> tuple[float, ...]:
    """Seconds of one step for every batch size 1..cap, linear between the measured sizes."""
    sizes = sorted(step_s)
    filled = np.interp(range(1, cap + 1), sizes, [step_s[size] for size in sizes])
    return tuple(filled.tolist())


class BatchCap:
    """The cap of a running worker, `now`; never above the `full` one that warm-up chose."""

    def __init__(self, full: int) -> None:
        self.now = self._full = full
        self._pause_s = GROW_AFTER_S
        self._grew_s = self._halved_s = float("-inf")

    def halve(self, failed_batch: int, now_s: float) -> int:
        """A batch of this size did not fit. If the cap has just grown, that was too early: pause longer next time."""
        early = now_s - self._grew_s < self._pause_s
        self._pause_s = min(MAX_PAUSE_S, 2 * self._pause_s) if early else GROW_AFTER_S
        self._halved_s = now_s
        self.now = max(1, failed_batch // 2)
        return self.now

    def grow(self, now_s: float) -> None:
        """Allow twice the size again when nothing has failed for a while."""
        if self.now < self._full and now_s - max(self._halved_s, self._grew_s) >= self._pause_s:
            self.now = min(self._full, 2 * self.now)
            self._grew_s = now_s


def steps_to_place(steps_left: Sequence[int], cap: int) -> int:
    """Steps until one more request could join the batch; 0 while it has room.

    `steps_left` lists running requests, then waiting ones in their order. The result is a lower bound: it takes
    each waiting request to join as soon as a place is free.
    """
    ends = sorted(steps_left[:cap])  # after how many steps each place falls free
    for left in steps_left[cap:]:
        place = ends.pop(0)
        ends.append(place + left)
        ends.sort()
    return ends[0] if len(steps_left) >= cap else 0
