"""More than the pool can do: quality bends first, then requests are refused early and with a time to come back."""

import asyncio
from collections.abc import Iterator

import pytest

from e2e_cluster import Cluster
from e2e_load import Load, levels_of, prompts, quantile, steady, summary
from e2e_pools import (
    RunningPool,
    changes_of,
    follow_mix,
    namespace_of,
    pool_document,
    running_pool,
    simulated_group,
    slowed_profile,
)
from e2e_report import record

pytestmark = pytest.mark.timeout(900)
SLOWER, WORKERS, BATCH = 12.0, 2, 4
SLO_S = 6.0
BURST_S = 60.0
GATEWAYS, MAX_QUEUED = 2, 256  # the defaults: what cannot be in time is refused long before a queue is full
#: Two workers with full batches at the cheapest level, 4 steps, that the floor allows: see `slowed_profile`.
CAPACITY_RPS = WORKERS * BATCH / (4 * 0.0097 * SLOWER * (1 + 0.5 * (BATCH - 1)))


#: The same at full steps.
EXACT_RPS = CAPACITY_RPS * 4 / 12


@pytest.fixture(scope="module")
def small(cluster: Cluster, release: str) -> Iterator[RunningPool]:
    """Two slow simulated workers, so that ten times their capacity is little work for client and gateway."""
    with namespace_of(cluster, "t2i-overload") as namespace:
        gateway = {"replicas": GATEWAYS, "maxQueuedRequests": MAX_QUEUED}
        document = pool_document("small", workerGroups=[simulated_group(WORKERS)], gateway=gateway)
        with running_pool(cluster, namespace, document, slowed_profile(SLOWER, BATCH)) as pool:
            yield pool


async def peak_of(pool: RunningPool, done: asyncio.Event) -> dict[str, float]:
    """The largest queue and the largest resident memory of any gateway while it goes on."""
    gateways = [pod["metadata"]["name"] for pod in await asyncio.to_thread(pool.pods, "gateway")]
    peak = {"queued": 0.0, "gateway_mib": 0.0}
    while not done.is_set():
        for gateway in gateways:
            found = await asyncio.to_thread(pool.metrics, gateway)
            peak["queued"] = max(peak["queued"], found[("t2i_gateway_queued_requests", "")])
            peak["gateway_mib"] = max(peak["gateway_mib"], found[("process_resident_memory_bytes", "")] / 2**20)
        await asyncio.sleep(1.0)
    return peak


async def test_mix_follows_the_load_and_comes_back(small: RunningPool) -> None:
    """Half of what the pool makes at full steps, then nearly three times that, then half again: workers move to a
    cheaper level and back, no accepted image is lost, and no pod restarts.
    """
    phases, begin_s = ((0.5, 40.0), (2.7, 60.0), (0.5, 110.0)), 0.0
    instants: list[float] = []
    for number, (share, seconds) in enumerate(phases):
        instants += [begin_s + at_s for at_s in steady(share * EXACT_RPS, seconds, seed=number)]
        begin_s += seconds
    load, seen, stop = Load(small.service_address, tries=1), list[tuple[float, str]](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(follow_mix(small, load.now_s, seen, stop))
        outcomes = await load.run(instants, prompts(len(instants), seed=11))
        stop.set()
        await following
    mixes, numbers = changes_of(seen), summary(outcomes, SLO_S)
    record(
        "load step, the mix",
        "simulated",
        **numbers,
        restarts=small.restarts(),
        recovery_s=None,
        exact_capacity_rps=round(EXACT_RPS, 2),
        levels=levels_of(outcomes),
        mixes=mixes,
    )
    assert numbers["lost"] == 0, numbers
    assert small.restarts() == 0
    calm = f"{WORKERS}x0"
    assert any(mix not in ("", calm) for at_s, mix in mixes if at_s >= phases[0][1]), mixes
    assert mixes[-1][1] == calm, mixes


@pytest.mark.parametrize("factor", [2, 10])
async def test_overload(small: RunningPool, factor: int) -> None:
    """A minute of it, then the usual load: goodput stays, refusals are quick, and soon all is as before."""
    rate_rps = factor * CAPACITY_RPS
    burst = steady(rate_rps, BURST_S, seed=factor)
    after = [BURST_S + at_s for at_s in steady(0.4 * CAPACITY_RPS, 30, seed=factor)]
    load = Load(small.service_address, limit_s=SLO_S, tries=1)  # who waits for longer is queued for longer
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(peak_of(small, done))
        outcomes = await load.run([*burst, *after], prompts(len(burst) + len(after), seed=factor))
        done.set()
    in_burst = [one for one in outcomes if one.at_s < BURST_S]
    good = [one for one in in_burst if one.ok and one.latency_s <= SLO_S and one.ended_s <= BURST_S]
    refused = sorted(one.latency_s for one in in_burst if one.refused)
    told = [one.retry_after_s for one in in_burst if one.refused and one.code == "RESOURCE_EXHAUSTED"]
    unwell = [one.ended_s for one in outcomes if one.at_s >= BURST_S and (not one.ok or one.latency_s > SLO_S)]
    numbers = summary(outcomes, SLO_S)
    # Whose request takes a free slot is chance among gateways: some are accepted and then told that their turn is late.
    told_late = sum(one.lost and one.code == "RESOURCE_EXHAUSTED" for one in outcomes)
    goodput = len(good) / (BURST_S - 2) / CAPACITY_RPS  # the first images take their time
    record(
        f"overload {factor}x for a minute",
        "simulated",
        **numbers,
        restarts=small.restarts(),
        recovery_s=round(max((ended_s - BURST_S for ended_s in unwell), default=0.0), 2),
        offered_rps=round(len(in_burst) / BURST_S, 1),
        capacity_rps=round(CAPACITY_RPS, 2),
        goodput_of_capacity=round(goodput, 3),
        told_late=told_late,
        refused_p99_s=quantile(refused, 0.99),
        retry_after_p50_s=quantile(sorted(after_s for after_s in told if after_s is not None), 0.5),
        levels=levels_of(outcomes),
        peak={key: round(value, 1) for key, value in watching.result().items()},
    )
    assert numbers["lost"] - told_late <= 0.01 * numbers["served"], numbers  # expired in a queue
    assert told_late <= 0.2 * numbers["served"], numbers
    assert set(numbers["codes"]) <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}, numbers["codes"]
    assert told
    assert all(after_s is not None and after_s > 0 for after_s in told), "RetryInfo says when to come back"
    assert goodput >= 0.9
    assert max((ended_s - BURST_S for ended_s in unwell), default=0.0) <= 10
    assert watching.result()["queued"] <= MAX_QUEUED
