"""Work in a thread and an event loop of its own, beside the operator's."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

STOP_LIMIT_S = 8.0


async def run_in_own_loop(
    name: str, work: Callable[[], Coroutine[Any, Any, None]], stop: Callable[[], object] | None = None
) -> None:
    """Until the work ends by itself, or we are cancelled. Then `stop` tells it, called from this thread; without one it
    is cancelled too. It gets STOP_LIMIT_S to end.

    Raises:
        Exception: what ended it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    stopping = threading.Event()
    running: list[asyncio.Task[None]] = []

    async def cancellable() -> None:
        task = asyncio.create_task(work())
        running.append(task)
        if stopping.is_set() and stop is None:
            task.cancel()
        await task

    def run() -> None:
        error: BaseException | None = None
        try:
            asyncio.run(cancellable())
        except asyncio.CancelledError:
            error = None if stopping.is_set() else RuntimeError(f"{name}: cancelled by nobody")
        except BaseException as caught:  # noqa: BLE001 - carried over to the task that waits for this thread
            error = caught
        with suppress(RuntimeError):  # the operator's loop has ended
            loop.call_soon_threadsafe(_finish, done, error)

    def cancel() -> None:
        for task in running:
            with suppress(RuntimeError):  # its loop has ended by itself
                task.get_loop().call_soon_threadsafe(task.cancel)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        await asyncio.shield(done)
    finally:
        stopping.set()
        (stop or cancel)()
        if not done.done():
            await asyncio.wait([done], timeout=STOP_LIMIT_S)


def _finish(done: "asyncio.Future[None]", error: BaseException | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(None)
