"""Clients in processes of their own: as fast as answers come, or at a rate whatever the answers do."""

import asyncio
import random
import time
from dataclasses import dataclass, field

from bench.gateway.asked import ASK_ERRORS, Ask, AskedWay, asking, prompts

IN_FLIGHT, WARM_UP = 24, 24


@dataclass(slots=True)
class Heard:
    """What a client heard. `took_ms` of each image, `wall_s` from the first question to the last answer."""

    failed: int = 0
    wall_s: float = 0.0
    took_ms: list[float] = field(default_factory=list)

    async def ask(self, ask: Ask, prompt: str) -> None:
        began_s = time.perf_counter()
        try:
            await ask(prompt)
        except ASK_ERRORS:
            self.failed += 1
        else:
            self.took_ms.append(1e3 * (time.perf_counter() - began_s))


def in_a_closed_loop(way: AskedWay, seconds: float, seed: int) -> Heard:
    """IN_FLIGHT requests at any time."""
    return asyncio.run(_closed(way, seconds, seed))


def at_a_rate(way: AskedWay, rate_rps: float, seconds: float, seed: int) -> Heard:
    """Poisson arrivals, behind a few that open the connections."""
    return asyncio.run(_at_a_rate(way, rate_rps, seconds, seed))


async def _closed(way: AskedWay, seconds: float, seed: int) -> Heard:
    said, heard = iter(prompts(round(1000 * seconds) + IN_FLIGHT, seed)), Heard()
    async with asking(way) as ask:
        began_s = time.monotonic()

        async def loop() -> None:
            while time.monotonic() < began_s + seconds:
                await heard.ask(ask, next(said))

        await asyncio.gather(*(loop() for _ in range(IN_FLIGHT)))
        heard.wall_s = time.monotonic() - began_s
    return heard


async def _at_a_rate(way: AskedWay, rate_rps: float, seconds: float, seed: int) -> Heard:
    arrivals, heard, at_s = random.Random(seed), Heard(), 0.0
    said = iter(prompts(round(3 * rate_rps * seconds) + WARM_UP, seed))
    async with asking(way) as ask, asyncio.TaskGroup() as asked:
        await asyncio.gather(*(Heard().ask(ask, next(said)) for _ in range(WARM_UP)))
        began_s = time.monotonic()
        while (at_s := at_s + arrivals.expovariate(rate_rps)) < seconds:
            await asyncio.sleep(max(0.0, began_s + at_s - time.monotonic()))
            asked.create_task(heard.ask(ask, next(said)))
    heard.wall_s = time.monotonic() - began_s
    return heard
