"""The batch cap: how many requests may share a step.

It is decided from step times measured at warm-up, and halved when memory runs out. A larger batch is worth it only
while it makes more images a second; beyond that it only delays everyone in it. The cap is never a constant, because
it depends on model, image size and device.
"""

from collections.abc import Mapping, Sequence

import numpy as np

MIN_GAIN = 1.03  # factor by which a larger batch must raise throughput
BATCH_SIZES = (1, 2, 4, 8, 16, 32)


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


def cap_after_out_of_memory(failed_batch: int) -> int:
    return max(1, failed_batch // 2)


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
