"""The batch cap: how many requests may share a step, decided from measured step times and from running out of memory.

A larger batch is worth it only while it makes more images a second; past that it only delays everyone in it. The cap
is measured at warm-up per model, size and device, never fixed, and halved when memory runs out.
"""

from collections.abc import Mapping, Sequence

MIN_GAIN = 1.03  # throughput a larger batch must add, as a factor, to be used
BATCH_SIZES = (1, 2, 4, 8, 16, 32)


def choose_batch_cap(step_s: Mapping[int, float]) -> int:
    """The largest measured batch up to which every larger one still raised throughput by MIN_GAIN.

    `step_s` maps measured batch sizes (1 among them) to seconds of one step.
    """
    sizes = sorted(step_s)
    cap = sizes[0]
    for size in sizes[1:]:
        if size / step_s[size] < MIN_GAIN * cap / step_s[cap]:
            break
        cap = size
    return cap


def fill_step_times(step_s: Mapping[int, float], cap: int) -> tuple[float, ...]:
    """Seconds of one step for every batch size 1..cap, straight lines between the measured ones."""
    sizes = sorted(step_s)
    return tuple(_interpolated(step_s, sizes, size) for size in range(1, cap + 1))


def _interpolated(step_s: Mapping[int, float], sizes: Sequence[int], size: int) -> float:
    below = max(measured for measured in sizes if measured <= size)
    above = min((measured for measured in sizes if measured >= size), default=below)
    if above == below:
        return step_s[below]
    share = (size - below) / (above - below)
    return step_s[below] + share * (step_s[above] - step_s[below])


def cap_after_out_of_memory(failed_batch: int) -> int:
    """Half of the batch that did not fit, at least 1."""
    return max(1, failed_batch // 2)


def steps_to_place(steps_left: Sequence[int], cap: int) -> int:
    """Steps until one more request would join, of what runs and waits (in that order): 0 with room in the batch.

    A lower bound: those who wait before it are taken to join when places fall free, each after its own steps.
    """
    ends = sorted(steps_left[:cap])
    for left in steps_left[cap:]:
        place = ends.pop(0)
        ends.append(place + left)
        ends.sort()
    return ends[0] if len(steps_left) >= cap else 0
