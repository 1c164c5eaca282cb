"""Threads and memory of an engine over many requests: what grows with them would end a worker some day."""

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.engine.rig import BATCH, EngineRig, draw
from bench.kit.output import say
from t2i_policy.level import Level

SHORT_STEPS = 2  # what may leak is per request, not per step
WARM = 0.1  # of the requests: caches and pools are full by then


async def count_leaks(rig: EngineRig, requests: int) -> dict[str, Any]:
    """Threads of the process and its resident MiB, after the first tenth of the requests and after all."""
    engine = rig.engine(BATCH)
    numbers = itertools.count(1)
    seen: list[tuple[int, float]] = []

    async def client() -> None:
        while (number := next(numbers)) <= requests:
            await draw(engine, replace(rig.job(), level=Level(0, SHORT_STEPS)))
            if number in (round(WARM * requests), requests):
                seen.append(_threads_and_mib())
            if number % 1000 == 0:
                say(f"{number} of {requests} requests, {_threads_and_mib()}")

    await asyncio.gather(*(client() for _ in range(2 * BATCH)))
    await engine.close()
    (threads, mib), (threads_at_end, mib_at_end) = seen[0], seen[-1]
    return {
        "lasting_requests": requests,
        "lasting_threads": [threads, threads_at_end],
        "lasting_rss_mib": [round(mib, 1), round(mib_at_end, 1)],
    }


def _threads_and_mib() -> tuple[int, float]:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines["Threads"]), int(lines["VmRSS"].split()[0]) / 1024
