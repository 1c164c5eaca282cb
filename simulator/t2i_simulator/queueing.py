"""The gateway's queue in virtual time. Admission bounds it; the nearest deadline is first; requests leave at it."""

import heapq
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from t2i_policy.level import Level


@dataclass(order=True, slots=True)
class SimulatedRequest:
    """One waiting request, ordered by deadline (virtual seconds), then by number.

    `extra_steps` run before the level's own steps. Only workers at the level `sent_to` take it (None: any worker).
    `tries` counts the workers that lost it. Its client asked `gateway` and waits until `gives_up_s`, which is after
    the deadline; an image in between is late.
    """

    deadline_s: float
    number: int
    gives_up_s: float = field(compare=False)
    level: Level = field(compare=False)
    extra_steps: int = field(compare=False, default=0)
    sent_to: Level | None = field(compare=False, default=None)
    excluded: frozenset[str] = field(compare=False, default=frozenset())
    tries: int = field(compare=False, default=0)
    waits: bool = field(compare=False, default=False)
    gateway: int = field(compare=False, default=0)

    @property
    def steps(self) -> int:
        return self.level.steps_run + self.extra_steps


class Queue:
    """One line for each level that only some workers take (None: any worker).

    So a level whose workers are full delays no other level. A request that leaves early stays in its line, marked,
    until it is at the front.
    """

    def __init__(self) -> None:
        self._lines: dict[Level | None, list[SimulatedRequest]] = {}
        self.count = 0
        self.steps = 0

    def __iter__(self) -> Iterator[SimulatedRequest]:
        """Those that wait, in no order."""
        for line in self._lines.values():
            yield from (request for request in line if request.waits)

    def push(self, request: SimulatedRequest) -> None:
        request.waits = True
        self.count += 1
        self.steps += request.steps
        heapq.heappush(self._lines.setdefault(request.sent_to, []), request)

    def put_back(self, requests: list[SimulatedRequest]) -> None:
        """Put back requests that `next` returned and that no worker took. They still count as waiting."""
        for request in requests:
            heapq.heappush(self._lines.setdefault(request.sent_to, []), request)

    def next(self, blocked: Collection[Level | None] = ()) -> SimulatedRequest | None:
        """Take the request with the nearest deadline from its line, except from `blocked` lines.

        It counts as waiting until `leave`.
        """
        best: list[SimulatedRequest] | None = None
        for key, line in list(self._lines.items()):
            while line and not line[0].waits:  # it left early, for example at its deadline
                heapq.heappop(line)
            if not line:
                del self._lines[key]
            elif key not in blocked and (best is None or line[0] < best[0]):
                best = line
        return None if best is None else heapq.heappop(best)

    def leave(self, request: SimulatedRequest) -> None:
        """Stop counting a request: it was placed, or its time is up."""
        request.waits = False
        self.count -= 1
        self.steps -= request.steps

    def drain(self) -> list[SimulatedRequest]:
        """Let all requests leave, in order."""
        requests = []
        while (request := self.next()) is not None:
            self.leave(request)
            requests.append(request)
        return requests
