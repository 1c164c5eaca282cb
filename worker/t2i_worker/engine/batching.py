"""The batch cap: how many requests may share a step; and what steps of other image sizes cost.

It is decided from step times measured at warm-up. It is halved when memory runs out. It grows again after a while,
because what took the memory may have been something else. A larger batch is worth it only while it makes more images a
second; beyond that it only delays everyone in it. The cap is never a constant, because it depends on model, image size
and device.

The cap counts requests of the default size. One of another size takes as many places as its steps cost:

    step cost = the larger of  (step / batch size at its own best batch) / (the same at the default size)
                         and   1 + (its step alone - the default's alone) / (the default's full batch, per request)

The second is what the gateways' estimate of an image alone needs (`t2i_policy.pool_view`); it is the larger one where
the device is not full. Images of several sizes run in one batch, as one forward for each size. None is larger than that
size's own cap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log

import numpy as np

from t2i_policy.image_size import ImageSize
from t2i_policy.profile import step_time

STEP_TIME_WEIGHT = 0.1  # weight of the newest step in the running average of step times
#: A step counts as at most this many averages. Gateways compare a worker with its own average, so a worker that was
#: stopped for a moment must not raise that average at once. One that stays slow raises it within some dozen steps.
MAX_STEP_GROWTH = 1.5
DEFAULT = ImageSize(0, 0)  # stands for the default size, whatever it is
ROUNDING = 1e-6  # of places
MIN_GAIN = 1.03  # factor by which a larger batch must raise throughput
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
GROW_AFTER_S = 60.0
MAX_PAUSE_S = 3600.0


@dataclass(slots=True)
class SizeTimes:
    """`step_s[b - 1]` is the time of one step at batch size b, `cap` the largest batch. A step costs `step_cost` steps
    of the default size.
    """

    size: ImageSize
    step_cost: float
    cap: int
    step_s: list[float]


@dataclass(frozen=True, slots=True)
class WarmUpTimes:
    """`step_s[b - 1]` is the time of one step at batch size b; `fixed_s` is the time to decode and encode one image.

    A step takes `calls_per_step` calls of the denoiser: families that guide by a second call, and samplers of order 2,
    make two. `latent_bytes` is the size of one latent. All are of the default size; `sizes` are the others.
    """

    batch_cap: int
    step_s: tuple[float, ...]
    fixed_s: float
    calls_per_step: float = 1.0
    latent_bytes: int = 0
    sizes: tuple[SizeTimes, ...] = ()


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


def measure_step_cost(step_s: Mapping[int, float], default_s: Sequence[float]) -> float:
    """What a step of a size costs: its seconds by batch size, against those of the default size up to its cap."""
    cap = choose_batch_cap(step_s)
    place_s = min(default_s[-1] / len(default_s), default_s[0])
    return max(step_s[cap] / cap / place_s, 1 + (step_s[1] - default_s[0]) / place_s)


class StepTimes:
    """Seconds of a step by image size and batch size, learned from the steps that run. The default size comes first."""

    def __init__(self, times: WarmUpTimes) -> None:
        self.default_s = list(times.step_s)
        others = [replace(one, step_s=list(one.step_s)) for one in times.sizes]
        self._sizes = [SizeTimes(DEFAULT, 1.0, times.batch_cap, self.default_s), *others]

    def of(self, step_cost: float) -> SizeTimes:
        """Those of the measured size whose steps cost about as much."""
        return min(self._sizes, key=lambda one: abs(log(one.step_cost / step_cost)))

    def cap(self, step_cost: float) -> int:
        """The largest batch of this size alone."""
        near = self.of(step_cost)
        return max(1, int(near.cap * near.step_cost / step_cost + ROUNDING))

    def usual_s(self, counts: Mapping[float, int]) -> float:
        """A step of a batch: how many requests it has by what their steps cost. One forward for each size."""
        sizes = [(self.of(step_cost), step_cost, count) for step_cost, count in counts.items()]
        return sum(step_time(near.step_s, count) * cost / near.step_cost for near, cost, count in sizes)

    def learn(self, step_cost: float, count: int, step_s: float) -> None:
        """A step of `count` requests of one size took so long."""
        near = self.of(step_cost)
        if count <= len(near.step_s):
            usual_s, step_s = near.step_s[count - 1], step_s * near.step_cost / step_cost
            near.step_s[count - 1] += STEP_TIME_WEIGHT * (min(step_s, MAX_STEP_GROWTH * usual_s) - usual_s)


class BatchCap:
    """The cap of a running worker, `now`; never above the `full` one that warm-up chose."""

    def __init__(self, full: int) -> None:
        self.now = self.full = full
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
        if self.now < self.full and now_s - max(self._halved_s, self._grew_s) >= self._pause_s:
            self.now = min(self.full, 2 * self.now)
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
