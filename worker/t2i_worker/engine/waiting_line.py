"""Who waits for a place in the batch, in order. Background requests have a line of their own, behind all others.

They may join, and stay, only while no other request is there. The step loop's lock guards the line.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from t2i_worker.engine.loop_state import places_of
from t2i_worker.engine.request import RunningRequest

#: Positions of those that run, of requests of which the first so many would; None: these.
Choose = Callable[[Sequence[RunningRequest], int], list[int] | None]


class WaitingLine:
    """`foreground`: accepted requests that are no background ones, wherever they are now."""

    def __init__(self) -> None:
        self._first: deque[RunningRequest] = deque()
        self._background: deque[RunningRequest] = deque()
        self.foreground = 0

    def __iter__(self) -> Iterator[RunningRequest]:
        yield from self._first
        yield from self._background

    @property
    def wants_a_boundary(self) -> bool:
        """Whether somebody could join or must be told that it is over."""
        if self._first or any(request.cancelled for request in self._background):
            return True
        return bool(self._background) and not self.foreground

    def add(self, request: RunningRequest) -> None:
        self._of(request).append(request)

    def put_back(self, requests: Sequence[RunningRequest]) -> None:
        """To the head, in their order; they lose no step, as their calls are posted."""
        for request in reversed(requests):
            self._of(request).appendleft(request)

    def keep(self, goes_on: Callable[[RunningRequest], bool]) -> None:
        """Only those that go on."""
        self._first = deque(request for request in self._first if goes_on(request))
        self._background = deque(request for request in self._background if goes_on(request))

    def next_batch(self, running: Sequence[RunningRequest], cap: int, choose: Choose) -> list[RunningRequest]:
        """The batch of the next step, `cap` places of it. Background requests in `running` make way for others.

        `choose` may take others than those that are first. Who gives way is at the head of the line.
        """
        aside = [request for request in running if request.background]
        batch = [request for request in running if not request.background]
        if batch or self._first or self.foreground:
            self.put_back(aside)
            line = self._first
        else:
            batch, line = aside, self._background
        places = places_of(batch)
        while line and places < cap:
            places += line[0].step_cost
            batch.append(line.popleft())
        requests = [*batch, *line]
        chosen = choose(requests, len(batch))
        if chosen is not None:
            batch = [requests[at] for at in chosen]
            line.clear()
            line.extend(request for request in requests if request not in batch)
        return batch

    def clear(self) -> None:
        self._first.clear()
        self._background.clear()

    def _of(self, request: RunningRequest) -> deque[RunningRequest]:
        return self._background if request.background else self._first
