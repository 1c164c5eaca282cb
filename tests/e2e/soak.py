"""A soak: steady load at 0.7 of what the pool can do, with a fault every so often; what leaks, grows.

`make e2e-soak` runs it for twenty minutes (`E2E_SOAK_S`). Not collected by `make e2e`.
"""

import asyncio
import functools
import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from statistics import fmean

import pytest

from e2e_cluster import Cluster, until
from e2e_faults import address_of, cut, frozen, kill
from e2e_load import Load, prompts, steady, summary
from e2e_pools import SYSTEM, RunningPool
from e2e_report import ROOT, record

SECONDS = float(os.environ.get("E2E_SOAK_S", "1200"))
RATE_RPS = 6.0  # 0.7 of the two workers that a fault leaves, at the mix of levels that they then serve
FAULT_EVERY_S = 45.0
LOOK_EVERY_S = 5.0
SLO_S = 6.0
MIB = 2.0**20
#: Of each pod, by component: metric, divisor, name in the report. What the pods hold is added up.
HELD = {
    component: (
        ("process_resident_memory_bytes", MIB, f"{component}_mib"),
        ("process_open_fds", 1.0, f"{component}_files"),
        (f"t2i_{component}_tasks", 1.0, f"{component}_tasks"),
    )
    for component in ("gateway", "operator")
}
LEAKS = tuple(name for held in HELD.values() for _, _, name in held)
SLACK = {"gateway_tasks": 5.0}  # they are few, and come and go with requests
WATCH_AGE = "watch_age_s"  # of the gateways' watches of the API server, the oldest
HEARD = "t2i_gateway_watch_heard_timestamp_seconds"
WATCH_AGE_LIMIT_S = 120.0  # bookmarks come about every minute, and a watch that says nothing for 90 s is begun anew
SERIES = ROOT / "build" / "bench" / "e2e-soak.json"
Row = dict[str, float]


def look(cluster: Cluster, pool: RunningPool, system: str) -> Row:
    """What gateways and operators hold now."""
    row = dict.fromkeys((*LEAKS, WATCH_AGE), 0.0)
    for component, namespace in (("gateway", pool.namespace), ("operator", system)):
        for pod in cluster.pods(namespace, component):
            found = cluster.metrics(namespace, pod["metadata"]["name"])
            for metric, divisor, name in HELD[component]:
                row[name] += found[metric, ""] / divisor
            ages = [time.time() - heard_s for (metric, _), heard_s in found.items() if metric == HEARD]
            row[WATCH_AGE] = max(row[WATCH_AGE], *ages, 0.0)
    return row


async def look_on(take: Callable[[], Row], now_s: Callable[[], float], rows: list[Row], stop: asyncio.Event) -> None:
    """Every few seconds."""
    while not stop.is_set():
        rows.append({"at_s": round(now_s(), 1), **await asyncio.to_thread(take)})
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
@pytest.mark.usefixtures("enterable")
async def test_soak(cluster: Cluster, simulated: RunningPool) -> None:
    """Memory, tasks and open files of the last third are those of the second, watches of the API server stay fresh, and
    no accepted request is lost."""
    load, draw, stop = Load(simulated.service_address), random.Random(1), asyncio.Event()
    instants, faults = steady(RATE_RPS, SECONDS, seed=9), list[tuple[float, str]]()
    rows = list[Row]()
    asked, end_s = prompts(len(instants), seed=9), time.monotonic() + SECONDS - FAULT_EVERY_S
    take = functools.partial(look, cluster, simulated, SYSTEM)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(load.run(instants, asked))
        looking = group.create_task(look_on(take, load.now_s, rows, stop))
        while time.monotonic() < end_s:
            await asyncio.sleep(FAULT_EVERY_S * draw.uniform(0.5, 1.0))
            name, strike = await asyncio.to_thread(fault_of, cluster, simulated, draw)
            faults.append((round(load.now_s(), 1), name))
            await asyncio.to_thread(strike)
            all_ready = lambda: simulated.ready("worker") == 3  # noqa: E731
            await asyncio.to_thread(until, "workers are back", all_ready, 120)
        outcomes = await sending
        stop.set()
        await looking
    third = len(rows) // 3
    second, last = rows[third : 2 * third], rows[2 * third :]  # the first third warms up
    growth = {name: [round(fmean(row[name] for row in part), 1) for part in (second, last)] for name in LEAKS}
    oldest_s = round(max(row[WATCH_AGE] for row in last), 1)
    numbers = summary(outcomes, SLO_S)
    record(
        "soak",
        "simulated",
        **numbers,
        restarts=simulated.restarts(),
        seconds=SECONDS,
        faults=dict(Counter(name for _, name in faults)),
        growth=growth,
        oldest_watch_s=oldest_s,
    )
    SERIES.write_text(json.dumps({"faults": faults, "rows": rows}))
    assert faults, "nothing went wrong: the test shows nothing"
    assert numbers["lost"] == 0, numbers
    for name, (before, after) in growth.items():
        assert after < 1.1 * before + SLACK.get(name, 0.0), (name, before, after)
    assert oldest_s < WATCH_AGE_LIMIT_S
