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

from t2i_operator.cluster.api import KubeApi
from t2i_operator.cluster.lease import Leadership

log = logging.getLogger(__name__)
STUCK_S = 60.0
STOP_LIMIT_S = 8.0
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
    done: asyncio.Future[None] = loop.create_future()
    stopping = threading.Event()
    stop: list[Callable[[], object]] = []
    pulse = Pulse(loop)

    async def keep() -> None:
        task = asyncio.current_task()
        own = asyncio.get_running_loop()
        if task is not None:
            stop.append(lambda: own.call_soon_threadsafe(task.cancel))
        if stopping.is_set():
            return
        async with open_api() as api:
            await leadership.keep(api, pulse.beat, lambda: loop.call_soon_threadsafe(leadership.changed.set))

    def run() -> None:
        error: BaseException | None = None
        try:
            asyncio.run(keep())
        except asyncio.CancelledError:
            error = None if stopping.is_set() else RuntimeError("the lease is not kept any more")
        except BaseException as caught:  # noqa: BLE001 - carried over to the task that waits for this thread
            error = caught
        with suppress(RuntimeError):  # the operator's loop has ended
            loop.call_soon_threadsafe(_finish, done, error)

    threading.Thread(target=run, name="lease", daemon=True).start()
    try:
        await asyncio.shield(done)
    finally:
        stopping.set()
        for end in stop:
            with suppress(RuntimeError):  # its loop has ended by itself
                end()
        if not done.done():
            await asyncio.wait([done], timeout=STOP_LIMIT_S)


def _finish(done: "asyncio.Future[None]", error: BaseException | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(None)
