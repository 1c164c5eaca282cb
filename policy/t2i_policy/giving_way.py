"""Who of a batch gives way where its steps have become too long for all to be in time.

Requests are admitted by the step times that a worker measured. If its steps become several times longer, all in the
batch would be late together. Then as many run as can still be in time, and the others wait without losing steps.
Decided at a step boundary from what each request owes and from the present step times by batch size:

1. While nobody of the batch would be later than HOPE allows, nobody gives way.
2. Requests are taken by their deadlines. Whenever not all of those taken can be in time, the one with most steps left
   is left out (Moore and Hodgson 1968: the most jobs in time on one machine). It would make the others' steps longer
   for the longest time. Those that run owe ever fewer steps, so the choice stays as it is.
3. Those left out run beside the others as far as these stay in time. Where a step hardly depends on the batch size,
   as on a large GPU, that is everybody: giving way would gain nothing.

A request is ended early only if it would be late even alone and at the device's best (`is_hopeless`). It must never end
one for the present pace: a slow phase may pass.
"""

from collections.abc import Iterable, Sequence
from math import ceil
from typing import NamedTuple

from t2i_policy.batch_limit import HOPE
from t2i_policy.profile import step_time

PACE_STEPS = 2  # in a row that must be slow: one that was held up says nothing of those to come
ROUNDING = 1e-9


class OwedInPlaces(NamedTuple):
    """Denoising steps that a request still needs, seconds in which they must be done, its places of the batch."""

    left_s: float
    steps: float
    places: float = 1.0


def is_hopeless(owed: OwedInPlaces, quickest_s: float) -> bool:
    """True if it comes too late with steps of `quickest_s`: one of this request alone, at the device's best."""
    return owed.left_s * HOPE < owed.steps * quickest_s


def choose_running(
    owed: Sequence[OwedInPlaces], num_running: int, step_s: Sequence[float], batch_cap: float
) -> list[int] | None:
    """Positions of those that run now, ascending; None: the first `num_running`, as they came.

    `step_s[b - 1]` is the present time of a step of batch size b, `batch_cap` in places.
    """
    if _in_time(owed[:num_running], step_s, hope=HOPE):
        return None
    taken: list[int] = []
    for at in sorted(range(len(owed)), key=lambda at: owed[at].left_s):
        taken.append(at)
        urgent = [owed[one] for one in taken]
        if not (_fits(urgent, batch_cap) and _in_time(urgent, step_s)):
            taken.remove(max(taken, key=lambda one: (owed[one].steps, owed[one].left_s, one)))
    urgent = [owed[at] for at in taken]
    left_out = sorted(set(range(len(owed))).difference(taken))
    for at in sorted(left_out, key=lambda at: not _in_time([owed[at]], step_s)):  # those with hope of their own first
        beside = [owed[one] for one in taken[len(urgent) :]] + [owed[at]]
        if _fits([*urgent, *beside], batch_cap) and _in_time(urgent, step_s, beside):
            taken.append(at)
    return sorted(taken)


def _fits(batch: Sequence[OwedInPlaces], batch_cap: float) -> bool:
    """One may join wherever one place is free, so the largest may reach beyond the cap."""
    places = [one.places for one in batch]
    return sum(places) - max(places) < batch_cap - ROUNDING


def _in_time(
    batch: Sequence[OwedInPlaces], step_s: Sequence[float], beside: Iterable[OwedInPlaces] = (), hope: float = 1.0
) -> bool:
    """True if all of `batch` are, with those `beside` it. Whoever ends makes the steps of the others shorter."""
    members = [(one, True) for one in batch] + [(one, False) for one in beside]
    places = sum(one.places for one, _ in members)
    at_s = done = 0.0
    for one, must in sorted(members, key=lambda member: member[0].steps):
        at_s += (one.steps - done) * step_time(step_s, ceil(places - ROUNDING))
        if must and at_s > hope * one.left_s + ROUNDING:
            return False
        done, places = one.steps, places - one.places
    return True
