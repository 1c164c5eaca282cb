"""Whose turn a free slot is, where several gateways share the workers and several tenants ask.

Gateways with a queue get the slots that fall free in turn, as chance has it. A tenant whose requests all come to one of
them would so get no more than that one's turns. Therefore a tenant's weight counts where its requests wait, and a
gateway's claim is what its tenants bring to it:

    claim(gateway) = sum over tenants of weight * steps that wait here / steps that wait anywhere

Of the slots that it could take a gateway takes a share: its claim over the largest claim. It leaves the other slots to
the gateway with the largest. A slot that it left it takes after LEFT_FOR_S, if nobody else did: what it knows of the
others is a moment old. Its own queue's wait counts the claims of all over its own. With fewer than two tenants chance
decides, as with equal claims.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from t2i_policy.pool_view import OtherQueues, TenantSteps
from t2i_policy.queue import DEFAULT_WEIGHT, FairQueue, tenant_key

LEFT_FOR_S = 0.05  # a gateway hears of a free slot and takes it in less


def slot_claims(waiting: Sequence[TenantSteps], weights: Mapping[int, float]) -> list[float]:
    """The claim of each gateway; none if fewer than two tenants wait. Weights are by `tenant_key`."""
    totals: dict[int, int] = {}
    for steps_of in waiting:
        for tenant, steps in steps_of.items():
            totals[tenant] = totals.get(tenant, 0) + steps
    if len(totals) < 2:
        return []
    return [
        sum(weights.get(tenant, DEFAULT_WEIGHT) * steps / totals[tenant] for tenant, steps in steps_of.items())
        for steps_of in waiting
    ]


class SlotTurns:
    """One gateway's, beside its queue. `others` is what it heard of the other gateways last."""

    def __init__(self, queue: FairQueue[Any]) -> None:
        self._queue = queue
        self._weights = {tenant_key(name): weight for name, weight in queue.weights.items()}
        self._credit = 0.0
        self._left_until_s: list[float] = []  # of each slot that is left to others, the nearest first

    def look(self, free: int) -> None:
        """So many slots are free: of those that were left, the rest were taken."""
        del self._left_until_s[free:]

    @property
    def left(self) -> int:
        """How many of the free slots are left to others."""
        return len(self._left_until_s)

    @property
    def look_again_s(self) -> float | None:
        """When to look whether a slot that was left is still free."""
        return self._left_until_s[0] if self._left_until_s else None

    def sharing(self, others: OtherQueues | None, tenant: str) -> OtherQueues | None:
        """`others`, with as many gateways as have the claim of this one, once a request of `tenant` waits here too."""
        if others is None or not others.by_tenant:
            return others
        own = self._queue.steps_by_tenant()
        own.setdefault(tenant_key(tenant), 1)
        claims = slot_claims([own, *others.by_tenant], self._weights)
        return replace(others, gateways=sum(claims) / claims[0] - 1) if claims else others

    def may_take(self, others: OtherQueues | None, free: int, now_s: float) -> bool:
        """Whether this gateway takes one of the free slots now, or leaves all of them."""
        share = self._share(others)
        if share == 1:
            self._left_until_s.clear()
            return True
        while len(self._left_until_s) < free:
            self._credit += share
            if self._credit >= 1:
                self._credit -= 1
                return True
            self._left_until_s.append(now_s + LEFT_FOR_S)
        if self._left_until_s and self._left_until_s[0] <= now_s:
            del self._left_until_s[0]
            return True
        return False

    def _share(self, others: OtherQueues | None) -> float:
        """Of the slots that it could take; 1 = every one."""
        if others is None or not others.by_tenant:
            return 1.0
        claims = slot_claims([self._queue.steps_by_tenant(), *others.by_tenant], self._weights)
        return claims[0] / max(claims) if claims else 1.0
