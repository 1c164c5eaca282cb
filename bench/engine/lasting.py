"""Threads and memory of an engine over many requests: what grows with them would end a worker some day.

Resident memory also holds what is free but was not given back. That grows slowly without a leak, so memory is read a
second time after glibc has given back what it can.
"""

import asyncio
import ctypes
import gc
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.engine.rig import BATCH, EngineRig, draw
from bench.kit.output import say
from t2i_policy.level import Level

SHORT_STEPS = 2  # what may leak is per request, not per step
WARM = 0.1  # of the requests: caches and pools are full by then


@dataclass(frozen=True)
class Footprint:
    """Threads of the process, its resident MiB, and those without what the allocator held for later."""

    threads: int
    rss_mib: float
    used_mib: float


async def count_leaks(rig: EngineRig, requests: int) -> dict[str, Any]:
    """The process after the first tenth of the requests and after all."""
    engine = rig.engine(BATCH)
    numbers = itertools.count(1)
    seen: list[Footprint] = []

    async def client() -> None:
        while (number := next(numbers)) <= requests:
            await draw(engine, replace(rig.job(), level=Level(0, SHORT_STEPS)))
            if number in (round(WARM * requests), requests):
                seen.append(_footprint())
            if number % 1000 == 0:
                say(f"{number} of {requests} requests, {_threads_and_mib()}")

    await asyncio.gather(*(client() for _ in range(2 * BATCH)))
    await engine.close()
    ends = (seen[0], seen[-1])
    return {
        "lasting_requests": requests,
        "lasting_threads": [one.threads for one in ends],
        "lasting_rss_mib": [round(one.rss_mib, 1) for one in ends],
        "lasting_used_mib": [round(one.used_mib, 1) for one in ends],
    }


def _footprint() -> Footprint:
    threads, rss_mib = _threads_and_mib()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return Footprint(threads, rss_mib, used_mib=_threads_and_mib()[1])


def _threads_and_mib() -> tuple[int, float]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines["Threads"]), int(lines["VmRSS"].split()[0]) / 1024
