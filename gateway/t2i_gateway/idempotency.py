"""Request ids: a repeat of a tenant's request id joins the run in flight or gets its result; it never draws twice.

A run is a task of its own with followers; when the last follower leaves before the end, it is cancelled. Failures are
not remembered, so a retry after one draws. Memory is bounded by count, bytes and age.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from t2i_gateway.errors import GatewayError, RequestIdReused
from t2i_gateway.events import Events, ToldEvent, is_done, size_of
from t2i_protos.v1 import gateway_pb2

MAX_RESULTS = 256
MAX_BYTES = 64 << 20
KEEP_S = 600.0


@dataclass(slots=True)
class _Run:
    """One drawing and who follows it. The id must come with the same request, of which `fingerprint` is a digest."""

    fingerprint: bytes
    events: list[ToldEvent] = field(default_factory=list)
    ended: bool = False
    error: BaseException | None = None
    followers: int = 0
    size_bytes: int = 0
    ended_s: float = 0.0
    task: "asyncio.Task[None] | None" = None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Wake the followers."""
        self.news.set()
        self.news = asyncio.Event()


class IdempotentRuns:
    """The runs of one gateway by tenant and request id. Used from one event loop."""

    def __init__(self) -> None:
        self._runs: OrderedDict[tuple[str, str], _Run] = OrderedDict()
        self._bytes = 0

    async def follow(self, key: tuple[str, str], fingerprint: bytes, draw: Callable[[], Events]) -> Events:
        """Events of the run with this key, from its beginning; `draw` makes them if there is none.

        Raises:
            RequestIdReused: the key belongs to another request.
        """
        run = self._runs.get(key)
        replayed = run is not None
        if run is None:
            run = self._begin(key, fingerprint, draw)
        if run.fingerprint != fingerprint:
            raise RequestIdReused("this request_id was used for another request; choose a new one")
        run.followers += 1
        try:
            async with aclosing(self._events(run)) as events:
                async for event in events:
                    yield _marked(event) if replayed else event
        finally:
            run.followers -= 1
            if not run.followers and not run.ended:
                await self._abandon(key, run)

    @staticmethod
    async def _events(run: _Run) -> Events:
        at = 0
        while True:
            news = run.news
            while at < len(run.events):
                yield run.events[at]
                at += 1
            if run.ended:
                break
            await news.wait()
        if run.error is not None:
            raise run.error

    def _begin(self, key: tuple[str, str], fingerprint: bytes, draw: Callable[[], Events]) -> _Run:
        self._make_room()
        run = self._runs[key] = _Run(fingerprint)
        run.task = asyncio.create_task(self._draw(key, run, draw))
        return run

    async def _draw(self, key: tuple[str, str], run: _Run, draw: Callable[[], Events]) -> None:
        try:
            async with aclosing(draw()) as events:
                async for event in events:
                    run.events.append(event)
                    size = size_of(event)
                    run.size_bytes += size
                    self._bytes += size
                    run.tell()
        except GatewayError as error:
            run.error = error
        finally:
            run.ended, run.ended_s = True, time.monotonic()
            if run.error is not None or not run.events or not is_done(run.events[-1]):
                self._drop(key)
            run.tell()

    async def _abandon(self, key: tuple[str, str], run: _Run) -> None:
        self._drop(key)
        if run.task is not None:
            run.task.cancel()
            with suppress(asyncio.CancelledError):
                await run.task

    def _make_room(self) -> None:
        now_s = time.monotonic()
        for key, run in list(self._runs.items()):
            full = len(self._runs) >= MAX_RESULTS or self._bytes > MAX_BYTES
            if run.ended and (full or now_s - run.ended_s > KEEP_S):
                self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        run = self._runs.pop(key, None)
        if run is not None:
            self._bytes -= run.size_bytes


def _marked(event: ToldEvent) -> ToldEvent:
    """The event as a repeat gets it: `done` says that it was drawn before."""
    if not is_done(event):
        return event
    copy = gateway_pb2.GenerateEvent()
    copy.CopyFrom(event)
    copy.done.replayed = True
    return copy
