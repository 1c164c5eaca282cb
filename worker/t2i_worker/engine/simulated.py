"""The simulated engine has a worker's timing without a model: for scale tests and gateway benchmarks.

A job takes `fixed_s + steps_run * step_s[batch]`, where batch is the batch size when it joins. Its image is plain gray.
A job of another size takes as many places of the batch as its steps cost, and `fixed_s` as often. What they cost says
the profile, or else the pixels.
Progress comes about every `REPORT_EVERY_S` of steps. So a process that is stopped or starved loses the steps of
that time, as a real worker does. Caps, deadlines, cancellation and drain work as in the real engine.
A background job waits at every step as long as other jobs are there. It is in no figure but its own.
It neither fetches nor keeps latents: it believes that skipped steps are skipped. It needs no torch.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from functools import lru_cache
from math import ceil
from typing import Protocol

import numpy as np

from t2i_cache.stores import BoundedStore
from t2i_policy.image_size import ImageSize, counted_steps
from t2i_policy.profile import step_time
from t2i_policy.readiness import EngineSigns, Readiness, judge_readiness
from t2i_worker.engine.accepted_jobs import AcceptedJobs
from t2i_worker.errors import BudgetSpent, WorkerDraining
from t2i_worker.images import encode_image
from t2i_worker.jobs import (
    Event,
    Finished,
    Image,
    ImageFormat,
    Job,
    Joined,
    Load,
    ModelFacts,
    Progress,
    StoredLatent,
    Tally,
)

REPORT_EVERY_S = 0.1
WAKE_S = 0.01  # a busy event loop wakes this late; it must not count as a slow step


class ServiceTimes(Protocol):
    """What a profile, or its section of a model, says of time."""

    @property
    def step_s(self) -> tuple[float, ...]: ...

    @property
    def fixed_s(self) -> float: ...


class SimulatedEngine:
    def __init__(
        self, facts: ModelFacts, profile: ServiceTimes, batch_cap: int, queue_cap: int, tally: Tally | None = None
    ) -> None:
        self.facts = facts
        self.tally = tally or Tally()
        self.own_latents: BoundedStore | None = None
        self._profile = profile
        self._batch_cap = batch_cap
        self._queue_cap = queue_cap
        self._jobs = AcceptedJobs()
        self._entrance = asyncio.Lock()
        self._running = 0
        self._places = 0.0  # of those that run
        self._steps_left = 0
        self._closed = False

    def readiness(self) -> Readiness:
        return judge_readiness(EngineSigns(draining=self._jobs.draining))

    def load(self) -> Load:
        return Load(
            ready=not self._jobs.draining,
            draining=self._jobs.draining,
            running=self._running,
            waiting=self._jobs.count - self._running,
            batch_cap=self._batch_cap,
            queue_cap=self._queue_cap,
            step_s=tuple(step_time(self._profile.step_s, size) for size in range(1, self._batch_cap + 1)),
            fixed_s=self._profile.fixed_s,
            steps_left=self._steps_left,
            steps_took_s=self.tally.steps_took_s,
            steps_usual_s=self.tally.steps_usual_s,
            step_age_s=0.0,
            encode_age_s=0.0,
            places=self._jobs.places,
            background=self._jobs.background,
            model=self.facts.model,
        )

    async def changed(self) -> None:
        await self._jobs.changed()

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        draw = self._draw_aside if job.background else self._draw
        async with aclosing(draw(job)) as events:
            async for event in events:
                yield event

    async def _draw_aside(self, job: Job) -> AsyncGenerator[Event, None]:
        """Step by step, alone."""
        accepted_s = time.monotonic()
        level, step_cost = job.level, self.facts.step_cost(job.size)
        step_s = step_time(self._profile.step_s, ceil(step_cost)) * level.step_share
        with self._jobs.taken_aside():
            await self._pass(job, self._profile.fixed_s * step_cost)
            joined_s = time.monotonic()
            yield Joined(level, "AsRequested", 1)
            for done in range(1, level.steps_run + 1):
                await self._pass(job, step_s)
                yield Progress(level.skipped_steps + done, level.num_inference_steps)
            yield self._image(job)
            took_s = time.monotonic() - joined_s
            yield Finished(level, 1e3 * (joined_s - accepted_s), 1e3 * took_s, 0.0, 0.0)

    async def _pass(self, job: Job, seconds: float) -> None:
        await self._jobs.none_else(job)
        if self._closed:
            raise WorkerDraining("the worker is shutting down")
        left_s = job.seconds_left
        await asyncio.sleep(seconds if left_s is None else min(seconds, left_s))
        if left_s is not None and left_s < seconds:
            raise BudgetSpent("the budget ran out")

    async def _draw(self, job: Job) -> AsyncGenerator[Event, None]:
        accepted_s = time.monotonic()
        steps, step_cost = job.level.steps_run, self.facts.step_cost(job.size)
        owed = counted_steps(job.level.cost, step_cost)
        with self._jobs.taken(self._batch_cap + self._queue_cap, step_cost):
            self._steps_left += owed
            try:
                async with self._joined(step_cost):
                    joined_s, size = time.monotonic(), self._running
                    step_s = step_time(self._profile.step_s, ceil(self._places)) * job.level.step_share
                    await self._spend(job, self._profile.fixed_s * step_cost)  # the time beside the steps comes first
                    every = _report_every(steps, step_s)
                    yield Joined(job.level, "AsRequested", size)
                    for done in (*range(every, steps, every), steps):
                        await self._spend(job, step_s * ((done - 1) % every + 1))
                        yield Progress(job.level.skipped_steps + done, job.level.num_inference_steps)
                    self._count(job)
                    yield self._image(job)
                    took_s = time.monotonic() - joined_s
                    yield Finished(job.level, 1e3 * (joined_s - accepted_s), 1e3 * took_s, 0.0, 0.0)
            finally:
                self._steps_left -= owed

    @asynccontextmanager
    async def _joined(self, places: float) -> AsyncGenerator[None, None]:
        """Wait for a free place in the batch, in order, and hold so many."""
        async with self._entrance:
            while self._places >= self._batch_cap:
                await self._jobs.changed()
            self._running += 1
            self._places += places
        self._jobs.notify()
        try:
            yield
        finally:
            self._running -= 1
            self._places = self._places - places if self._running else 0.0
            self._jobs.notify()

    async def _spend(self, job: Job, seconds: float) -> None:
        began_s = time.monotonic()
        left_s = float("inf") if job.deadline_s is None else job.deadline_s - began_s
        if seconds > 0:
            await asyncio.sleep(min(seconds, max(0.0, left_s)))
        if left_s < seconds:  # the deadline comes before the end of these steps
            raise BudgetSpent("the budget ran out")
        self.tally.steps_took_s += (time.monotonic() - began_s) / self._running  # a batch shares its steps
        self.tally.steps_usual_s += (seconds + WAKE_S) / self._running
        self._jobs.notify()

    def _image(self, job: Job) -> Image:
        drawn = job.size or self.facts.size
        return Image(_gray(drawn, job.image_format), job.image_format, drawn.width, drawn.height)

    def _count(self, job: Job) -> None:
        self.tally.steps_run += job.level.steps_run
        self.tally.steps_skipped += job.level.skipped_steps

    async def keep_latent(self, held_id: str) -> tuple[StoredLatent, ...]:
        del held_id  # it sets none aside
        return ()

    async def drain(self) -> None:
        await self._jobs.drain()

    async def close(self) -> None:
        self._jobs.draining = self._closed = True
        self._jobs.notify()


@lru_cache(maxsize=64)
def _gray(size: ImageSize, image_format: ImageFormat) -> bytes:
    return encode_image(np.full((size.height, size.width, 3), 128, np.uint8), image_format)


def _report_every(steps: int, step_s: float) -> int:
    return max(1, min(steps, int(REPORT_EVERY_S / step_s) if step_s else steps))
