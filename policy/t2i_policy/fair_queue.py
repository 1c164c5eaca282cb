"""Fairness between tenants: whose request takes the next slot, and how much of the queue each may fill.

Start-time fair queueing (Goyal, Vin, Cheng 1996) over denoising steps: every tenant has a virtual clock that advances
by steps / weight for what it was given; the waiting tenant whose clock is behind goes next. A tenant that returns from
idling starts at the present, so silence saves nothing up. Over any busy stretch two waiting tenants get steps in the
ratio of their weights, within one request each: nobody starves, and a weight is a priority. Within a tenant the
nearest deadline goes first.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

DEFAULT_WEIGHT = 1.0
QUEUE_SHARE_FROM = 0.5  # below this share of the queue in use, anybody may wait


@dataclass(frozen=True, slots=True)
class FairClock:
    """Virtual clocks by tenant, and the present: the clock of whoever was served last."""

    clocks: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    present: float = 0.0

    def at(self, tenant: str) -> float:
        """The tenant's clock, no earlier than the present."""
        return max(self.present, self.clocks.get(tenant, 0.0))

    def served(self, tenant: str, steps: int, weight: float) -> "FairClock":
        """The clocks after `tenant` was given `steps` > 0 denoising steps. Clocks that are past are forgotten."""
        present = self.at(tenant)
        ahead = {name: clock for name, clock in self.clocks.items() if clock > present}
        ahead[tenant] = present + steps / weight
        return FairClock(MappingProxyType(ahead), present)


def next_tenant(clock: FairClock, waiting: Iterable[str]) -> str | None:
    """The waiting tenant that is furthest behind its share; ties by name. None if nobody waits."""
    return min(waiting, key=lambda tenant: (clock.at(tenant), tenant), default=None)


def steps_ahead(queued_steps: Mapping[str, int], tenant: str, weights: Mapping[str, float]) -> int:
    """Queued steps that go before a new request of `tenant`, which joins the end of its own line.

    Fluid limit of the rule above: while the tenant's own q steps pass, each other one gets at most q x its weight over
    ours, and no more than it has.
    """
    own = queued_steps.get(tenant, 0)
    mine = weights.get(tenant, DEFAULT_WEIGHT)
    others = sum(
        min(steps, own * weights.get(name, DEFAULT_WEIGHT) / mine)
        for name, steps in queued_steps.items()
        if name != tenant
    )
    return round(own + others)


def queue_limit(queued: Mapping[str, int], tenant: str, weights: Mapping[str, float], max_queued: int) -> int:
    """Requests that `tenant` may have waiting now, of `max_queued` for all: its weighted share once the queue fills."""
    if sum(queued.values()) < QUEUE_SHARE_FROM * max_queued:
        return max_queued
    present = {name for name, count in queued.items() if count} | {tenant}
    total = sum(weights.get(name, DEFAULT_WEIGHT) for name in present)
    return max(1, int(max_queued * weights.get(tenant, DEFAULT_WEIGHT) / total))
