"""The threads beside the denoise thread: one for texts, two for pixels. Their exceptions become WorkerErrors."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

import torch

from t2i_policy.readiness import ReadyReason
from t2i_worker.device_errors import is_device_lost, is_out_of_memory
from t2i_worker.error_places import where
from t2i_worker.errors import EngineLost, JobFailed, OutOfMemory, WorkerError
from t2i_worker.jobs import Tally

log = logging.getLogger(__name__)
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
        self._began_s: dict[Callable[[], object], float] = {}  # of the calls in work

    async def for_pixels(self, call: Callable[[], T]) -> T:
        """Run a decoder or an image encoder, two at a time."""
        return await self._run(self._pixels, call, "the image could not be decoded")

    async def for_texts(self, call: Callable[[], T]) -> T:
        """Run work that comes before the first step, one call at a time."""
        return await self._run(self._texts, call, "the prompt could not be encoded")

    @property
    def age_s(self) -> float:
        """For how long the oldest call in work has run; 0 without any."""
        began_s = list(self._began_s.values())  # a copy, as the threads write
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
        """In its thread, as what waits for a thread is not in work."""
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
