"""Other gateways that share the workers: what they sent to a worker, and what waits in them.

A gateway knows its own slots at once. Of the others it knows what the worker reports, which includes its own:

    foreign places = max(0, places taken as reported - own places there)
    foreign steps  = max(0, steps owed as reported   - own steps there)

Both are taken when a report comes and stand until the next one, a fraction of a second. Ours may have changed since it
was written: a negative difference is a slot that it does not know yet, so it counts as none.
It must count steps along with places: full slots that owe nothing look as if they would be free at once.

What waits in a gateway it tells with every request that it sends; workers pass that on with their load. A gateway with
a queue sends often, so one of which nothing was heard for KEPT_S has none. A gateway that does not hear of itself has
workers of an older version, or has not sent yet: then it knows nothing of the others. If one with a queue does not
say whose requests these are, nothing is known by tenant.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from t2i_policy.pool_view import OtherQueues, TenantSteps

KEPT_S = 5.0  # a gateway with a queue sends a request more often than this


@dataclass(frozen=True, slots=True)
class ToldQueue:
    """What a gateway told at `at_s` (seconds): requests that wait there, their steps, requests a second that come.

    `by_tenant`: the steps, as `FairQueue.steps_by_tenant`.
    """

    gateway: str
    at_s: float
    requests: int
    steps: int
    rate_rps: float
    by_tenant: TenantSteps = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HeldLoad:
    """Places of the batch that requests take at a worker, and the denoising steps that it owes to them."""

    places: float = 0
    steps: int = 0


def foreign_load(reported: HeldLoad, own: HeldLoad) -> HeldLoad:
    """The part of a worker's report that is not ours."""
    return HeldLoad(max(0, reported.places - own.places), max(0, reported.steps - own.steps))


def newest_told(told: Iterable[ToldQueue]) -> dict[str, ToldQueue]:
    """What each gateway told last, by its name."""
    newest: dict[str, ToldQueue] = {}
    for one in told:
        if one.gateway not in newest or one.at_s > newest[one.gateway].at_s:
            newest[one.gateway] = one
    return newest


def other_queues(told: Iterable[ToldQueue], own: str, now_s: float) -> OtherQueues | None:
    """The sum over the other gateways, each by what it told last; None = nothing can be known."""
    newest = newest_told(told)
    if newest.pop(own, None) is None:
        return None
    fresh = [one for one in newest.values() if now_s - one.at_s <= KEPT_S]
    waiting = [one.by_tenant for one in fresh if one.requests]
    return OtherQueues(
        requests=sum(one.requests for one in fresh),
        steps=sum(one.steps for one in fresh),
        gateways=len(waiting),
        rate_rps=sum(one.rate_rps for one in fresh),
        by_tenant=tuple(waiting) if all(waiting) else (),
    )
