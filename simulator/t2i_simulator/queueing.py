"""The gateway's queue in virtual time: bounded by admission, the nearest deadline first, out at the deadline."""

import heapq
from dataclasses import dataclass, field

from t2i_policy.levels import Level


@dataclass(order=True, slots=True)
class Ticket:
    """One waiting request; ordered by deadline (virtual seconds), then by number. `tries`: workers that lost it.

    `extra_steps` run before the level's own; `sent_to` is the level whose workers take it (see `deciding.Decided`).
    The client waits until `gives_up_s`, past the deadline: an image in between is late.
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

    @property
    def steps(self) -> int:
        """Denoising steps it costs."""
        return self.level.steps_run + self.extra_steps


class Queue:
    """See the module. A ticket that left early stays in the heap, marked, until it comes up."""

    def __init__(self) -> None:
        self._heap: list[Ticket] = []
        self.count = 0
        self.steps = 0

    def push(self, ticket: Ticket) -> None:
        """Let it wait."""
        ticket.waits = True
        self.count += 1
        self.steps += ticket.steps
        heapq.heappush(self._heap, ticket)

    def put_back(self, tickets: list[Ticket]) -> None:
        """Tickets that `next` gave and that nobody took: they never stopped waiting."""
        for ticket in tickets:
            heapq.heappush(self._heap, ticket)

    def next(self) -> Ticket | None:
        """The waiting ticket of the nearest deadline, off the heap; it still counts until `leave`."""
        while self._heap:
            ticket = heapq.heappop(self._heap)
            if ticket.waits:
                return ticket
        return None

    def leave(self, ticket: Ticket) -> None:
        """It was placed, or its time is up."""
        ticket.waits = False
        self.count -= 1
        self.steps -= ticket.steps

    def drain(self) -> list[Ticket]:
        """Everybody leaves, in order."""
        tickets = []
        while (ticket := self.next()) is not None:
            self.leave(ticket)
            tickets.append(ticket)
        return tickets
