"""How far a batch may grow: no further than the deadlines of those who are in it bear.

Each request that joins makes everybody's step longer. A request is admitted and gets its level by the batch it joins,
so that batch keeps the promise: it takes no more requests than its most urgent one bears.

    longest step = min over requests of (deadline - now) / steps left,      limit = largest batch with no longer step

A request that is a little late in the present batch still holds it at its size: as others leave it may be in time
after all. It must not hold a batch for one that cannot be helped: that would make those behind it late in turn.
"""

from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple

NO_LIMIT = 1 << 30
HOPE = 1.1  # times the present step: who needs one at least this short may be in time yet, as others leave
ROUNDING = 1e-9  # a share: a step this much too long is in time


class OwedSteps(NamedTuple):
    """Denoising steps that a request still needs, and the seconds in which they must be done."""

    left_s: float
    steps: float


def longest_step_s(owed: Iterable[OwedSteps], present_s: float) -> float:
    """Seconds that a step may take for all of them to be in time that can be; `present_s` is what it takes now."""
    return min([borne_step_s(left_s, steps, present_s) for left_s, steps in owed], default=inf)


def borne_step_s(left_s: float, steps: float, present_s: float) -> float:
    """The same for one of them; infinite for one that needs no step, or is beyond help."""
    return left_s / steps if steps > 0 and left_s >= present_s / HOPE * steps else inf


def batch_limit(step_s: Sequence[float], longest_s: float) -> int:
    """The largest batch with no longer step, at least 1; NO_LIMIT where every measured one's is short enough."""
    longest_s *= 1 + ROUNDING
    if not step_s or step_s[-1] <= longest_s:
        return NO_LIMIT
    limit = len(step_s)
    while limit > 1 and step_s[limit - 1] > longest_s:
        limit -= 1
    return limit
