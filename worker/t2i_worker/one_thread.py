"""Run a call in a thread that ends with the call.

CPU kernels keep a team of threads for every thread that has called them. When there are more such threads than cores,
idle members stop spinning. Each small kernel then waits for a wake-up, and a step takes up to twice as long.
The denoise thread must own the only team, so heavy work before its start runs here.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_own_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `call` in a new thread; the thread and its kernel team are gone when this returns."""
    pool = ThreadPoolExecutor(1)
    try:
        return await asyncio.wrap_future(pool.submit(call, *args, **kwargs))
    finally:
        await asyncio.to_thread(pool.shutdown)
