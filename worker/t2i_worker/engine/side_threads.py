"""The threads beside the denoise thread: one a request, one for what is drawn beside them, and one that decodes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


class RequestThreads:
    """Threads are used again, and there are at most `most` of them: a request beyond waits for one."""

    def __init__(self, most: int) -> None:
        # One kernel thread each: torch makes a team of them per calling thread, and more teams would take the cores
        # from the denoise thread's.
        self._requests = ThreadPoolExecutor(most, "request", torch.set_num_threads, (1,))
        self._aside = ThreadPoolExecutor(1, "aside", torch.set_num_threads, (1,))
        self._decoding = ThreadPoolExecutor(1, "decode")

    def start(self, call: Callable[[], None]) -> None:
        """Run a request; it tells its end by itself."""
        self._requests.submit(call)

    async def aside(self, call: Callable[[], T]) -> T:
        """Draw a preview or try a sampler, one at a time."""
        return await asyncio.get_running_loop().run_in_executor(self._aside, call)

    async def decode(self, call: Callable[[], T]) -> T:
        """Decode images of a request, one request at a time: each may need hundreds of megabytes meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._decoding, call)

    def close(self) -> None:
        """Drop queued calls; running ones end by themselves."""
        for threads in (self._requests, self._aside, self._decoding):
            threads.shutdown(wait=False, cancel_futures=True)


async def in_own_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a call in a thread that ends with it; heavy work before the denoise thread starts runs here.

    CPU kernels keep a team of threads for every thread that has called them. When there are more such threads than
    cores, idle members stop spinning. Each small kernel then waits for a wake-up, and a step takes up to twice as long.
    So the denoise thread must own the only team.
    """
    pool = ThreadPoolExecutor(1)
    try:
        return await asyncio.wrap_future(pool.submit(call, *args, **kwargs))
    finally:
        await asyncio.to_thread(pool.shutdown)
