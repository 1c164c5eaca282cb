"""Work in a thread and an event loop of its own, beside the operator's."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

STOP_LIMIT_S = 8.0


async def run_apart(name: str, work: Callable[[], Coroutine[Any, Any, None]], stop: Callable[[], object]) -> None:
    """Until the work ends by itself, or we are cancelled: then `stop` tells it (from this thread), and it gets
    STOP_LIMIT_S.

    Raises:
        Exception: what ended it.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def run() -> None:
        error: BaseException | None = None
        try:
            asyncio.run(work())
        except BaseException as caught:  # noqa: BLE001 - carried over to the task that waits for this thread
            error = caught
        with suppress(RuntimeError):  # the operator's loop has ended
            loop.call_soon_threadsafe(_finish, done, error)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        await asyncio.shield(done)
    finally:
        stop()
        if not done.done():
            await asyncio.wait([done], timeout=STOP_LIMIT_S)


def _finish(done: "asyncio.Future[None]", error: BaseException | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(None)
