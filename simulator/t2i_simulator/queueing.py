"""The gateway's queue in virtual time: bounded by admission, the nearest deadline first, out at the deadline."""

import heapq
from collections.abc import Collection
from dataclasses import dataclass, field

from t2i_policy.level import Level


@dataclass(order=True, slots=True)
class SimulatedRequest:
    """One waiting request; ordered by deadline (virtual seconds), then by number. `tries`: workers that lost it.

    `extra_steps` run before the level's own; `sent_to` is the level whose workers take it (see `deciding.Decided`).
    The client waits until `gives_up_s`, past the deadline: an image in between is late. It asked `gateway`.
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
        """Denoising steps it costs."""
        return self.level.steps_run + self.extra_steps


class Queue:
    """A line for each level that only some workers take (None: any worker), so that a level whose
    workers are full holds up nobody else. A ticket that left early stays in its line, marked, until it comes up.
    """

    def __init__(self) -> None:
        self._lines: dict[Level | None, list[SimulatedRequest]] = {}
        self.count = 0
        self.steps = 0

    def push(self, ticket: SimulatedRequest) -> None:
        """Let it wait."""
        ticket.waits = True
        self.count += 1
        self.steps += ticket.steps
        heapq.heappush(self._lines.setdefault(ticket.sent_to, []), ticket)

    def put_back(self, tickets: list[SimulatedRequest]) -> None:
        """Tickets that `next` gave and that nobody took: they never stopped waiting."""
        for ticket in tickets:
            heapq.heappush(self._lines.setdefault(ticket.sent_to, []), ticket)

    def next(self, blocked: Collection[Level | None] = ()) -> SimulatedRequest | None:
        """The waiting ticket of the nearest deadline, off its line; it still counts until `leave`. Not of `blocked`."""
        best: list[SimulatedRequest] | None = None
        for key, line in list(self._lines.items()):
            while line and not line[0].waits:
                heapq.heappop(line)
            if not line:
                del self._lines[key]
            elif key not in blocked and (best is None or line[0] < best[0]):
                best = line
        return None if best is None else heapq.heappop(best)

    def leave(self, ticket: SimulatedRequest) -> None:
        """It was placed, or its time is up."""
        ticket.waits = False
        self.count -= 1
        self.steps -= ticket.steps

    def drain(self) -> list[SimulatedRequest]:
        """Everybody leaves, in order."""
        tickets = []
        while (ticket := self.next()) is not None:
            self.leave(ticket)
            tickets.append(ticket)
        return tickets
