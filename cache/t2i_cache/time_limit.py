"""A time limit for another's answer, in which a stall of this process hardly counts.

A busy machine, or a container that used up its CPU quota, stands still for 100 ms and more. Whoever then looks at the
clock first blames a store that has answered long ago. So the limit is spent in parts, and between two parts what came
meanwhile is heard. A stall costs one part, however long it is.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

PARTS = 10
T = TypeVar("T")


async def within(limit_s: float, work: Coroutine[Any, Any, T]) -> T:
    """What the work gives. It is cancelled at the limit, and when the caller is.

    Raises:
        TimeoutError: it took longer.
    """
    task = asyncio.ensure_future(work)
    try:
        for _ in range(PARTS):
            await asyncio.wait((task,), timeout=limit_s / PARTS)
            if task.done():
                return task.result()
        raise TimeoutError
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
