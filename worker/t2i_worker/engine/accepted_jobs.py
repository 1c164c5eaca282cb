"""The jobs that an engine has accepted: their number, their places in the batch and the limit of those, and waiting for
a change or for the last one.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from t2i_worker.errors import WorkerBusy, WorkerDraining


class AcceptedJobs:
    """For one event loop only."""

    def __init__(self) -> None:
        self.count = 0
        self.places = 0.0
        self.draining = False
        self._changed = asyncio.Event()

    @contextmanager
    def taken(self, cap: int, places: float = 1.0) -> Iterator[None]:
        """Hold as many of `cap` places as the job's steps cost; the last job may take more than are left.

        Raises:
            WorkerDraining: the engine takes no more jobs.
            WorkerBusy: all places are held.
        """
        if self.draining:
            raise WorkerDraining("the worker is shutting down")
        if self.places >= cap:
            raise WorkerBusy(f"{self.count} requests are running or waiting already")
        self.count += 1
        self.places += places
        self.notify()
        try:
            yield
        finally:
            self.count -= 1
            self.places = self.places - places if self.count else 0.0
            self.notify()

    def notify(self) -> None:
        """Wake everyone who waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()  # those who wait from now on wait for the next change

    async def changed(self) -> None:
        """Return after the next `notify`."""
        await self._changed.wait()

    async def drain(self) -> None:
        """Give out no more places; return when all are free."""
        self.draining = True
        self.notify()
        while self.count:
            await self.changed()
