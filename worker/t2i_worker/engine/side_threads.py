"""The threads beside the denoise thread: one for texts, two for pixels. Their exceptions become WorkerErrors."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

from t2i_policy.readiness import ReadyReason
from t2i_worker.device_errors import is_device_lost, is_out_of_memory
from t2i_worker.errors import EngineLost, JobFailed, OutOfMemory, WorkerError, where
from t2i_worker.jobs import Tally

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")


class SideThreads:
    """Calls `on_lost` on the event loop when a call shows that the device is lost."""

    def __init__(self, device: torch.device, tally: Tally, on_lost: Callable[[EngineLost], None]) -> None:
        self._device = device
        self._tally = tally
        self._on_lost = on_lost
        # One kernel thread each: torch makes a team of them per calling thread, and more teams would take the cores
        # from the denoise thread's.
        self._pixels = ThreadPoolExecutor(2, "encode", torch.set_num_threads, (1,))
        self._texts = ThreadPoolExecutor(1, "text", torch.set_num_threads, (1,))  # no text waits behind an image
        self._began_s: dict[Callable[[], object], float] = {}  # when each running call began

    async def for_pixels(self, call: Callable[[], T]) -> T:
        """Run a decoder or an image encoder, two at a time."""
        return await self._run(self._pixels, call, "the image could not be decoded")

    async def for_texts(self, call: Callable[[], T]) -> T:
        """Run work that comes before the first step, one call at a time."""
        return await self._run(self._texts, call, "the prompt could not be encoded")

    @property
    def age_s(self) -> float:
        """Seconds that the oldest running call has run; 0 without calls."""
        began_s = list(self._began_s.values())  # a copy, because other threads write
        return time.monotonic() - min(began_s) if began_s else 0.0

    def close(self) -> None:
        """Drop queued calls; running ones end by themselves."""
        for threads in (self._pixels, self._texts):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _run(self, threads: Executor, call: Callable[[], T], failed: str) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, self._timed, call)
        except WorkerError:
            raise
        except Exception as error:
            raise self._to_worker_error(error, failed) from error

    def _timed(self, call: Callable[[], T]) -> T:
        """Note the beginning in the call's own thread: a call that waits for a thread does not run yet."""
        self._began_s[call] = time.monotonic()
        try:
            return call()
        finally:
            del self._began_s[call]

    def _to_worker_error(self, error: Exception, failed: str) -> WorkerError:
        if is_device_lost(error, self._device):
            log.critical("the device is lost to this process: %s", error)
            lost = EngineLost("the worker's device failed", ReadyReason.DEVICE_LOST)
            self._on_lost(lost)
            return lost
        log.warning("%s: %s", failed, where(error))
        if is_out_of_memory(error):
            self._tally.out_of_memory += 1
            return OutOfMemory("the request does not fit into memory")
        return JobFailed(failed)


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
