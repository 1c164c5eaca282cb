"""A soak: steady load at 0.7 of what the pool can do, with a fault every so often; what leaks, grows.

`make e2e-soak` runs it for twenty minutes (`E2E_SOAK_S`). Not collected by `make e2e`.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable
from statistics import fmean

import pytest

from e2e_cluster import Cluster, until
from e2e_faults import address_of, cut, frozen, kill
from e2e_load import Load, prompts, steady, summary
from e2e_pools import RunningPool
from e2e_report import record

SECONDS = float(os.environ.get("E2E_SOAK_S", "1200"))
RATE_RPS = 6.0  # 0.7 of the two workers that a fault leaves, at the mix of levels that they then serve
FAULT_EVERY_S = 45.0
LOOK_EVERY_S = 5.0
SLO_S = 6.0
WATCHED = ("resident_mib", "open_files", "t2i_gateway_in_flight_requests")
Row = dict[str, float]


async def look(pool: RunningPool, rows: list[Row], stop: asyncio.Event) -> None:
    """What the gateways hold, added up, every few seconds."""
    while not stop.is_set():
        row = {WATCHED[2]: await asyncio.to_thread(pool.metric, "gateway", WATCHED[2])}
        for pod in await asyncio.to_thread(pool.pods, "gateway"):
            for name, value in (await asyncio.to_thread(pool.process, pod["metadata"]["name"])).items():
                row[name] = row.get(name, 0.0) + value
        rows.append(row)
        await asyncio.sleep(LOOK_EVERY_S)


def fault_of(cluster: Cluster, pool: RunningPool, draw: random.Random) -> tuple[str, Callable[[], None]]:
    """One at random. Gateways are left alive: their memory is what is measured."""
    worker = draw.choice(pool.pods("worker"))
    gateway = draw.choice(pool.pods("gateway"))

    def freeze() -> None:
        with frozen(cluster, worker):
            time.sleep(8)

    def part() -> None:
        with cut(cluster, (address_of(gateway), address_of(worker))):
            time.sleep(8)

    return draw.choice([("killed", lambda: kill(cluster, worker)), ("frozen", freeze), ("cut off", part)])


@pytest.mark.timeout(SECONDS + 600)
async def test_soak(cluster: Cluster, simulated: RunningPool) -> None:
    """Memory and file descriptors of the last third are those of the first, and no accepted request is lost."""
    load, draw, stop = Load(simulated.service_address), random.Random(1), asyncio.Event()
    instants, faults = steady(RATE_RPS, SECONDS, seed=9), list[str]()
    rows = list[Row]()
    asked, end_s = prompts(len(instants), seed=9), time.monotonic() + SECONDS - FAULT_EVERY_S
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(load.run(instants, asked))
        looking = group.create_task(look(simulated, rows, stop))
        while time.monotonic() < end_s:
            await asyncio.sleep(FAULT_EVERY_S * draw.uniform(0.5, 1.0))
            name, strike = await asyncio.to_thread(fault_of, cluster, simulated, draw)
            faults.append(name)
            await asyncio.to_thread(strike)
            all_ready = lambda: simulated.ready("worker") == 3  # noqa: E731
            await asyncio.to_thread(until, "workers are back", all_ready, 120)
        outcomes = await sending
        stop.set()
        await looking
    third = len(rows) // 3
    first, last = rows[third : 2 * third], rows[2 * third :]  # the first third warms up
    growth = {name: [round(fmean(row[name] for row in part), 1) for part in (first, last)] for name in WATCHED}
    numbers = summary(outcomes, SLO_S)
    record("soak", "simulated", **numbers, restarts=simulated.restarts(), seconds=SECONDS, faults=faults, growth=growth)
    assert faults, "nothing went wrong: the test shows nothing"
    assert numbers["lost"] == 0, numbers
    for name in WATCHED[:2]:
        before, after = growth[name]
        assert after < 1.1 * before, (name, before, after)
