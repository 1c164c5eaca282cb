"""The queue of one gateway: whose request takes the next slot, and how much of the queue each tenant may fill.

Between tenants it is start-time fair queueing (Goyal, Vin, Cheng 1996) over denoising steps: every tenant has a virtual
clock that advances by steps / weight for what it was given; the waiting tenant whose clock is behind goes next. A
tenant that returns from idling starts at the present, so silence saves nothing up. Over any busy stretch two waiting
tenants get steps in the ratio of their weights, within one request each: nobody starves, and a weight is a priority.
Within a tenant the nearest deadline goes first.

Who may not take the slots that are free is passed over, and those behind are asked. A request is *choosy* if it may not
go to every worker. For example, it waits for one that holds its latent, or for a faster one. Requests of one *line* can
go to the same workers; where no choosy request stands in the way, one that finds no slot speaks for its whole line.

The queue is plainly mutable and has one writer. It knows no clock: whoever drives it removes requests in time.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from math import inf
from typing import Generic, TypeVar

DEFAULT_WEIGHT = 1.0
QUEUE_SHARE_FROM = 0.5  # below this share of the queue in use, anybody may wait
LATELY = 64.0  # requests: what was served so long ago counts 1/e, where shares of the slots are estimated
MOST_SCALE = 1e9  # from here on, what was served first is too little to be kept
LEAST_KEPT = 1e-3  # steps
MAX_SERVED = 1024  # tenants; beyond, all start at the present again, and their clocks were ahead by one request at most
MAX_TOLD = 16  # tenants that gateways tell each other of; the others are told as one
REST = 0  # the key of those others
LEFT_AT_MOST = 16  # requests that left and still lie in a heap, beside as many as wait


@dataclass(slots=True, eq=False, kw_only=True)
class WaitingRequest:
    """What the queue knows of a request. Of equal deadlines (seconds) the lower number is first.

    A queue sets `waits`. The rest stays as it is while the request waits.
    """

    tenant: str
    deadline_s: float
    number: int
    steps: int
    choosy: bool = False
    line: object = None
    waits: bool = False


@lru_cache(maxsize=MAX_SERVED)
def tenant_key(tenant: str) -> int:
    """What stands for a tenant among gateways, never REST: its name stays in its own."""
    return int.from_bytes(blake2b(tenant.encode(), digest_size=8).digest()) or 1


Request = TypeVar("Request", bound=WaitingRequest)
Line = list[tuple[float, int, Request]]  # a heap; its first request waits


@dataclass(slots=True)
class _TenantLines(Generic[Request]):
    """What waits of one tenant: a heap for each line."""

    requests: int = 0
    steps: int = 0
    lines: dict[object, Line[Request]] = field(default_factory=dict)


@dataclass(slots=True)
class _Served:
    """What one tenant was given: its clock, and its steps of late, times the queue's scale."""

    clock: float = 0.0
    lately: float = 0.0


class FairQueue(Generic[Request]):
    """`count` requests wait, of `steps` denoising steps. Tenants that are not in `weights` weigh 1."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.weights = weights
        self._tenants: dict[str, _TenantLines[Request]] = {}  # those that wait
        self._served: dict[str, _Served] = {}
        self._present = 0.0  # the clock of whoever was served last, when it was
        self._scale = 1.0  # grows instead of what was given shrinking
        self._left = 0  # requests in some line that left early
        self.count = 0
        self.steps = 0

    def __iter__(self) -> Iterator[Request]:
        """Those that wait, in no order."""
        for tenant in self._tenants.values():
            for line in tenant.lines.values():
                yield from (request for _, _, request in line if request.waits)

    def add(self, request: Request) -> None:
        tenant = self._tenants.get(request.tenant)
        if tenant is None:
            tenant = self._tenants[request.tenant] = _TenantLines()
        request.waits = True
        tenant.requests += 1
        tenant.steps += request.steps
        self.count += 1
        self.steps += request.steps
        heapq.heappush(tenant.lines.setdefault(request.line, []), (request.deadline_s, request.number, request))

    def remove(self, request: Request) -> None:
        """It waits no more. It may have left before."""
        if not request.waits:
            return
        tenant = self._tenants[request.tenant]
        request.waits = False
        tenant.requests -= 1
        tenant.steps -= request.steps
        self.count -= 1
        self.steps -= request.steps
        self._left += 1
        line = tenant.lines[request.line]
        while line and not line[0][2].waits:
            heapq.heappop(line)
            self._left -= 1
        if not line:
            del tenant.lines[request.line]
            if not tenant.lines:
                del self._tenants[request.tenant]
        if self._left > self.count + LEFT_AT_MOST:
            self._forget_who_left()

    def serve(self, start: Callable[[Request], bool]) -> None:
        """Offer the free slots to all that wait, in their order. `start` sends a request off, or finds no slot for it.

        A request waits until `start` has returned, unless `start` removes it.
        """
        full: set[object] = set()  # lines that no worker has room for
        passed_over: list[Request] = []
        while (request := self._next(full)) is not None:
            if start(request):
                self.remove(request)
                self._charge(request)
            elif request.waits and request.choosy:
                self.remove(request)
                passed_over.append(request)
            elif request.waits:
                full.add(request.line)
        for request in passed_over:
            self.add(request)

    def steps_ahead(self, tenant: str) -> int:
        """Steps that go before a new request of `tenant`, which joins the end of its own line.

        Fluid limit of the rule above. While the tenant's q steps pass, each other tenant gets what it has waiting and
        what comes meanwhile. What comes goes by its share f of the steps given lately. Each gets at most q x its weight
        over ours:

            ahead = q + sum over others of min(waiting + f * ahead, q * weight / ours)
        """
        lines = self._tenants.get(tenant)
        if lines is None:
            return 0
        own, total = lines.steps, sum(served.lately for served in self._served.values()) or 1.0
        others: list[tuple[int, float, float]] = []  # what waits, share of late, at most
        for name in (self._tenants.keys() | self._served.keys()) - {tenant}:
            waiting = self._tenants[name].steps if name in self._tenants else 0
            share = self._served[name].lately / total if name in self._served else 0.0
            others.append((waiting, share, own * self._weight(name) / self._weight(tenant)))
        # The right side is concave: its tangent, from a bound above, meets the left side ever nearer to the answer.
        nearer, ahead = own + sum(most for _, _, most in others), inf
        while nearer < ahead:
            ahead, fixed, slope = nearer, float(own), 0.0
            for waiting, share, most in others:
                under = waiting + share * ahead < most
                fixed += waiting if under else most
                slope += share if under else 0.0
            nearer = fixed / (1 - slope)
        return round(ahead)

    def room(self, tenant: str, max_queued: int) -> int:
        """How many may wait before a request of `tenant` is one too many. Once the queue fills, its share is full."""
        if self.count < QUEUE_SHARE_FROM * max_queued:
            return max_queued
        total = sum(self._weight(name) for name in {*self._tenants, tenant})
        share = max(1, int(max_queued * self._weight(tenant) / total))
        own = self._tenants[tenant].requests if tenant in self._tenants else 0
        return min(max_queued, share + self.count - own)

    def steps_by_tenant(self) -> dict[int, int]:
        """Steps that wait, by `tenant_key`: of the MAX_TOLD tenants that have most, and of the REST."""
        if len(self._tenants) <= MAX_TOLD:
            return {tenant_key(name): tenant.steps for name, tenant in self._tenants.items()}
        most = heapq.nlargest(MAX_TOLD, self._tenants.items(), key=lambda named: named[1].steps)
        told = {tenant_key(name): tenant.steps for name, tenant in most}
        return told | {REST: self.steps - sum(told.values())}

    def _weight(self, tenant: str) -> float:
        return self.weights.get(tenant, DEFAULT_WEIGHT)

    def _charge(self, request: Request) -> None:
        if self._scale > MOST_SCALE or len(self._served) > MAX_SERVED:
            self._forget_long_ago()
        served = self._served.get(request.tenant)
        if served is None:
            served = self._served[request.tenant] = _Served()
        self._present = max(self._present, served.clock)
        served.clock = self._present + request.steps / self._weight(request.tenant)
        served.lately += request.steps * self._scale
        self._scale *= 1 + 1 / LATELY

    def _next(self, full: set[object]) -> Request | None:
        """Of the tenant that is furthest behind its share, ties by name, the nearest deadline."""
        best: Request | None = None
        behind: tuple[float, str] | None = None
        for name, tenant in self._tenants.items():
            served = self._served.get(name)
            place = self._present if served is None else max(self._present, served.clock), name
            if behind is None or place < behind:
                first = min([line[0] for key, line in tenant.lines.items() if key not in full], default=None)
                if first is not None:
                    best, behind = first[2], place
        return best

    def _forget_who_left(self) -> None:
        waiting = list(self)
        self._tenants.clear()
        self.count = self.steps = self._left = 0
        for request in waiting:
            self.add(request)

    def _forget_long_ago(self) -> None:
        """Keep tenants that were given something of late, if they are not too many."""
        lately = {name: served.lately / self._scale for name, served in self._served.items()}
        if len(lately) > MAX_SERVED:
            lately.clear()
        self._served = {
            name: _Served(self._served[name].clock, steps) for name, steps in lately.items() if steps > LEAST_KEPT
        }
        self._scale = 1.0
