"""Keeping the lease in a thread, an event loop and with a connection of its own.

With a thousand pools the operator's loop has thousands of things to do at once after a restart, and an answer of the
API server waits for all of them: renewed there, the lease would be lost to our own work, again and again. Here it is
renewed on time. A loop that does not come round for STUCK_S does no work any more; then the lease is left to another
operator, while the liveness probe has this process restarted.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress

from t2i_operator.apart import run_apart
from t2i_operator.api import KubeApi
from t2i_operator.leadership import Leadership

log = logging.getLogger(__name__)
STUCK_S = 60.0
OpenApi = Callable[[], AbstractAsyncContextManager[KubeApi]]


class Pulse:
    """Does another loop come round? Ask `beat` now and then, from the thread that wants to know."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic) -> None:
        self._loop = loop
        self._clock = clock
        self._answered_s = clock()
        self._asked = False

    def beat(self) -> bool:
        """False if the loop has not come round for STUCK_S."""
        if not self._asked:
            self._asked = True
            self._loop.call_soon_threadsafe(self._answer)
        return self._clock() - self._answered_s < STUCK_S

    def _answer(self) -> None:
        self._asked, self._answered_s = False, self._clock()


async def keep_apart(leadership: Leadership, open_api: OpenApi) -> None:
    """Get and renew the lease until cancelled; then it has been given back.

    Raises:
        Exception: what ended it.
    """
    loop = asyncio.get_running_loop()
    stopping = threading.Event()
    tasks: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []
    pulse = Pulse(loop)

    async def keep() -> None:
        task = asyncio.create_task(renew())
        tasks.append((asyncio.get_running_loop(), task))
        if stopping.is_set():
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            if not stopping.is_set():
                raise RuntimeError("the lease is not kept any more") from None

    async def renew() -> None:
        async with open_api() as api:
            await leadership.keep(api, pulse.beat, lambda: loop.call_soon_threadsafe(leadership.changed.set))

    def stop() -> None:
        stopping.set()
        for own, task in tasks:
            with suppress(RuntimeError):  # its loop has ended by itself
                own.call_soon_threadsafe(task.cancel)

    await run_apart("lease", keep, stop)
