"""The workers of a pool as the gateway sees them: one link each, who is usable, and at which level they stand."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from t2i_gateway.workers.clock import LISTEN_EVERY_S
from t2i_gateway.workers.connection import LinkEvents, Wiring, WorkerConnection
from t2i_policy.level import Level
from t2i_policy.outliers import EjectedReason, WorkerHealth, usable
from t2i_policy.pool_view import WorkerView
from t2i_protos.v1 import worker_pb2

log = logging.getLogger(__name__)
RETIRE_LIMIT_S = 600.0  # for requests of a worker that has left the pool


class WorkerPool:
    """All links of one gateway."""

    def __init__(
        self, addresses: Sequence[str], wiring: Wiring, profiled_digest: str, on_ejection: Callable[[str], None]
    ) -> None:
        self._listener: Callable[[], None] = lambda: None
        self._profiled_digest = profiled_digest
        self._on_ejection = on_ejection
        self._loop = asyncio.get_running_loop()
        self._judging: asyncio.TimerHandle | None = None
        self._wiring = wiring
        self._levels: Mapping[str, Level] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._retiring: set[WorkerConnection] = set()
        self._older: dict[
            WorkerConnection, set[asyncio.Task[None]]
        ] = {}  # closing of connections that have a newer one
        self._judged_ready: frozenset[str] = frozenset()
        self._holding = self._unjudged = False
        self.links: list[WorkerConnection] = []
        for address in addresses:
            self.add(address)

    def add(self, address: str) -> None:
        """One more worker."""
        events = LinkEvents(self._notify, self._describe, self._take_in_health, self._renew)
        link = WorkerConnection(address, self._wiring, events)
        self.links.append(link)
        if self._tasks is not None:
            self._watching[address] = self._tasks.create_task(link.run())

    def remove(self, address: str) -> None:
        """Send this worker nothing more; what it has may end."""
        link = next(link for link in self.links if link.address == address)
        self.links.remove(link)
        task = self._watching.pop(address, None)
        if task is not None:
            task.cancel()
        self._start(self._retire(link))
        self._notify()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return (self._tasks or self._loop).create_task(work)

    async def _retire(self, link: WorkerConnection) -> None:
        """What it has may end, while it is heard."""
        self._retiring.add(link)
        await link.close(RETIRE_LIMIT_S)
        await asyncio.gather(*self._older.pop(link, ()))
        self._retiring.discard(link)

    def renew(self) -> None:
        """Reach every worker over a new channel: certificates changed. What runs on the old ones may end."""
        for link in self.links:
            self._renew(link)

    def _renew(self, link: WorkerConnection) -> None:
        older = self._older.setdefault(link, set())
        closing = self._start(link.renew().close(RETIRE_LIMIT_S))
        older.add(closing)
        closing.add_done_callback(older.discard)

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change of any link."""
        self._listener = listener

    def _notify(self) -> None:
        self._listener()

    def _describe(self, description: worker_pb2.WorkerDescription) -> None:
        """A worker has told its name: it may stand at a level already."""
        self.assign(self._levels)
        if description.model_digest != self._profiled_digest:
            log.warning("worker %s: the profile was measured on another model; measure this one with t2ictl profile",
                        description.name)  # fmt: skip

    def _take_in_health(self, link: WorkerConnection, before: WorkerHealth) -> None:
        if link.health.ejections > before.ejections:
            log.warning("worker %s is left out for a while: %s", link.name, link.health.reason)
            self._on_ejection(link.health.reason)
        if self._holding:
            self._unjudged = True
        else:
            self._judge()

    def _judge(self) -> None:
        """Bring every link's state up to date, now and when the next pause ends."""
        now_s = self._loop.time()
        self._judged_ready, self._unjudged = self._ready(), False
        states = usable({link.address: link.health for link in self.links if link.ready}, now_s)
        for link in self.links:
            link.settle(states.get(link.address) or link.health.state(now_s))
        pauses = [link.health.until_s for link in self.links if link.health.until_s > now_s]
        if self._judging is not None:
            self._judging.cancel()
        self._judging = self._loop.call_at(min(pauses), self._judge) if pauses else None

    def assign(self, levels: Mapping[str, Level]) -> None:
        """The plan's level of each worker, by name: an affinity."""
        self._levels = levels
        for link in self.links:
            if link.level != levels.get(link.name):
                link.level = levels.get(link.name)
                link.changed()

    @property
    def views(self) -> tuple[WorkerView, ...]:
        """Snapshots of all links."""
        return tuple(link.view for link in self.links)

    @property
    def left_out(self) -> dict[str, EjectedReason]:
        """Why workers that say they are ready are left out or on trial, by name."""
        judged = {link.name: link.health.reason for link in self.links if link.ready}
        return {name: reason for name, reason in judged.items() if reason is not EjectedReason.NONE}

    @property
    def description(self) -> worker_pb2.WorkerDescription | None:
        """What the pool's workers serve, from the first that is ready."""
        return next((link.description for link in self.links if link.ready), None)

    def by_name(self, name: str) -> WorkerConnection:
        """The link of a view's name."""
        return next(link for link in self.links if link.name == name)

    async def run(self) -> None:
        """Watch every worker until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._tasks = group
            for link in self.links:
                self._watching[link.address] = group.create_task(link.run())
            try:
                await self._listen()  # workers come and go
            finally:
                self._tasks = None

    async def _listen(self) -> None:
        while True:
            await asyncio.sleep(LISTEN_EVERY_S)
            self.listen()

    def listen(self) -> None:
        """Judge who says nothing, and everybody again when those that can serve are others than before. To be called
        every LISTEN_EVERY_S.
        """
        self._wiring.clock.look()
        everyone = (*self.links, *self._retiring)
        with self._judged_together():
            for link in everyone:
                link.listen()
        for link in everyone:
            link.look_at_waits(any(other.view.ready for other in self.links if other is not link))

    @contextmanager
    def _judged_together(self) -> Iterator[None]:
        """Who fell silent in the same moment is judged in one, or the first one's requests would move to the next."""
        self._holding = True
        yield
        self._holding = False
        if self._unjudged or self._ready() != self._judged_ready:
            self._judge()

    def _ready(self) -> frozenset[str]:
        return frozenset(link.address for link in self.links if link.ready)

    async def close(self) -> None:
        """Close every channel."""
        if self._judging is not None:
            self._judging.cancel()
        for closing in [task for tasks in self._older.values() for task in tasks]:
            closing.cancel()
        for link in self.links:
            await link.close()
