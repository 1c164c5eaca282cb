"""Watching: kopf in a thread and an event loop of its own.

kopf takes what it finds in its loop for its own (at its end it waits for every task there, and it takes the process's
signals). In a thread it can only do what we hand it: two functions that are safe to call from there.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import kopf

from t2i_operator.own_loop import run_in_own_loop
from t2i_policy.backoff import Backoff

log = logging.getLogger(__name__)
BACKOFF = Backoff(first_s=1.0, most_s=30.0)
LASTING_S = 60.0
#: Shown by kopf's peering only, which is off. Without one kopf asks for the user's name: in a container there is none.
IDENTITY: Any = "t2i-operator"  # kopf has a type for it that it does not export


class WatchesEnded(RuntimeError):
    """kopf stopped although nobody asked it to."""


async def watch(build: Callable[[], Any], settings: kopf.OperatorSettings, namespaces: Sequence[str]) -> None:
    """Run kopf with the registry that `build` makes until cancelled. No namespaces = all.

    Raises:
        WatchesEnded: it ended by itself.
        Exception: what ended it.
    """
    stop = threading.Event()

    async def operate() -> None:
        try:
            await kopf.operator(
                registry=build(),
                settings=settings,
                identity=IDENTITY,
                standalone=True,
                clusterwide=not namespaces,
                namespaces=namespaces,
                stop_flag=stop,
            )
        finally:
            stop.set()  # kopf waits for the flag in a thread of the loop, and the loop's end waits for that thread

    await run_in_own_loop("kopf", operate, stop.set)
    raise WatchesEnded("the watches ended by themselves")


async def keep_watching(
    build: Callable[[], Any], settings: kopf.OperatorSettings, namespaces: Sequence[str], on_restart: Callable[[], None]
) -> None:
    """`watch`, begun anew with a new list whenever it ends, until cancelled. An answer to a watch that kopf takes for
    fatal (a 410 as the status, a 403 while roles change) must not stop what does not need the watches.
    """
    failures = 0
    while True:
        began_s = time.monotonic()
        try:
            await watch(build, settings, namespaces)
        except Exception as error:  # noqa: BLE001 - whatever kopf ended with is told, and answered by beginning anew
            failures = 1 if time.monotonic() - began_s > LASTING_S else failures + 1
            pause_s = BACKOFF.pause_s(failures)
            log.warning("the watches ended (%s: %s), begin anew in %.0f s", type(error).__name__, error, pause_s)
            on_restart()
            await asyncio.sleep(pause_s)


def from_thread(loop: asyncio.AbstractEventLoop, call: Callable[..., None]) -> Callable[..., None]:
    """`call`, to be called from kopf's thread."""

    def hand_over(*arguments: object) -> None:
        loop.call_soon_threadsafe(call, *arguments)

    return hand_over


def awaited_in(
    loop: asyncio.AbstractEventLoop, call: Callable[[], Awaitable[kopf.ConnectionInfo]]
) -> Callable[..., Awaitable[kopf.ConnectionInfo]]:
    """`call`, to be awaited in kopf's loop and run in ours."""

    async def run() -> kopf.ConnectionInfo:
        return await call()

    async def hand_over(**_: Any) -> kopf.ConnectionInfo:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(), loop))

    return hand_over
