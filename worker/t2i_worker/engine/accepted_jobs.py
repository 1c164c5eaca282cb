"""The jobs that an engine has accepted: their number, their places in the batch and the limit of those. Others wait
here for a change, or for the last job to end. Background jobs are counted apart: they take no place from others.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from t2i_worker.errors import BudgetSpent, WorkerBusy, WorkerDraining
from t2i_worker.jobs import Job

MAX_BACKGROUND = 2  # of an engine; whoever wants more can wait elsewhere


class AcceptedJobs:
    """For one event loop only."""

    def __init__(self) -> None:
        self.count = 0
        self.places = 0.0
        self.background = 0
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

    @contextmanager
    def taken_aside(self) -> Iterator[None]:
        """Hold one of the few places of background jobs.

        Raises:
            WorkerDraining: the engine takes no more jobs.
            WorkerBusy: all places are held.
        """
        if self.draining:
            raise WorkerDraining("the worker is shutting down")
        if self.background >= MAX_BACKGROUND:
            raise WorkerBusy(f"{self.background} background requests are running or waiting already")
        self.background += 1
        self.notify()
        try:
            yield
        finally:
            self.background -= 1
            self.notify()

    async def none_else(self, job: Job) -> None:
        """Return while there is no job but background ones.

        Raises:
            BudgetSpent: the background job's budget was spent before.
        """
        try:
            async with asyncio.timeout(job.seconds_left):
                while self.count:
                    await self.changed()
        except TimeoutError as error:
            raise BudgetSpent("the budget ran out while other requests were there") from error

    def notify(self) -> None:
        """Wake everyone who waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()  # those who wait from now on wait for the next change

    async def changed(self) -> None:
        """Return after the next `notify`."""
        await self._changed.wait()

    async def drain(self) -> None:
        """Give out no more places; return when all are free. Background jobs are not waited for."""
        self.draining = True
        self.notify()
        while self.count:
            await self.changed()
