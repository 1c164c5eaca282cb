"""Latents of a small cache on a real kubelet: the volume's limit is never reached, so no worker is evicted for it."""

import asyncio

import pytest

from e2e_cluster import Cluster
from e2e_load import Load, prompts, steady, summary
from e2e_pools import RunningPool, namespace_of, pool_document, running_pool
from e2e_report import record

pytestmark = pytest.mark.timeout(900)
PROMPTS, WORKERS = 240, 2
CAPACITY_MEBIBYTES = 1
MIB = 1 << 20
RATE_RPS = 2.0
#: du reads while the worker works: it may count a latent with its folder that goes, and the one that takes its place.
SEEN_TWICE_BYTES = 40_960
EVICTION_LOOKS_S = 60.0  # the kubelet looks at volumes every ten seconds, and at their sizes once a minute


def small_cache() -> dict[str, object]:
    """The embedded model, a latent store of each worker with one mebibyte, and every prompt drawn in full."""
    levels = [{"skippedSteps": 0}, {"skippedSteps": 3}, {"skippedSteps": 6}, {"skippedSteps": 9}]
    resources = {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "1536Mi"}}
    group = {"name": "cpu", "workers": WORKERS, "template": {"resources": resources}}
    return pool_document(
        "bounded",
        levels=levels,
        workerGroups=[group],
        cache={"scope": "Tenant", "capacityMebibytes": CAPACITY_MEBIBYTES},
        slo={"latencyMilliseconds": 20_000, "minQualityPercent": 85},
        gateway={"replicas": 2, "maxQueuedRequests": 256},
    )


def folder_bytes(pool: RunningPool, pod: str) -> int:
    """What the worker's volume takes, as du counts in the pod."""
    found = pool.cluster.kubectl(
        "exec", pod, f"--namespace={pool.namespace}", "--", "du", "--summarize", "--block-size=1", "/cache"
    )
    return int(found.split()[0])


async def largest_folder(pool: RunningPool, done: asyncio.Event) -> int:
    """The largest that any worker's volume was, looked at again and again."""
    most = 0
    while not done.is_set():
        for pod in await asyncio.to_thread(pool.pods, "worker"):
            most = max(most, await asyncio.to_thread(folder_bytes, pool, pod["metadata"]["name"]))
    return most


def evictions(pool: RunningPool) -> list[str]:
    """What the kubelet says of pods that it ended for their volumes."""
    events = pool.cluster.get("events", f"--namespace={pool.namespace}", "--field-selector=reason=Evicted")["items"]
    return [str(event["message"]) for event in events]


async def test_small_cache_evicts_latents_and_no_worker(cluster: Cluster, release: str) -> None:
    """240 prompts, four times what the cache holds: each volume stays under the capacity, every pod stays, and repeats
    start from latents where they are promised.
    """
    with (
        namespace_of(cluster, "t2i-bounded") as namespace,
        running_pool(cluster, namespace, small_cache()) as pool,
    ):
        names = {pod["metadata"]["uid"] for pod in pool.pods("worker")}
        done = asyncio.Event()
        looking = asyncio.create_task(largest_folder(pool, done))
        asked = prompts(PROMPTS, seed=11)
        try:
            load = Load(pool.service_address, limit_s=60)
            outcomes = await load.run(steady(RATE_RPS, 2 * PROMPTS / RATE_RPS, seed=11), asked)
            await asyncio.sleep(EVICTION_LOOKS_S)
        finally:
            done.set()
            most = await looking
        again = await Load(pool.service_address, limit_s=60).run([0.0] * 12, asked[-12:])
        missing = pool.metric("gateway", "t2i_gateway_latent_misses_total", 'reason="LatentMissing"')
        gone = pool.metric("worker", "t2i_worker_latents_gone_total", 'reason="Capacity"')
        record(
            "a cache of one mebibyte, 240 prompts",
            "scenes",
            **summary(outcomes, 20.0),
            restarts=pool.restarts(),
            recovery_s=None,
            largest_folder_bytes=most,
            evicted_latents=gone,
            latents_missing=missing,
            skipped_again=[one.served[0] for one in again],
        )
        assert [one.code for one in outcomes] == ["OK"] * PROMPTS, summary(outcomes, 20.0)
        assert 0 < most <= CAPACITY_MEBIBYTES * MIB + SEEN_TWICE_BYTES
        assert gone > PROMPTS / 2  # one latent a prompt, of which the stores hold some sixty
        assert evictions(pool) == []
        assert {pod["metadata"]["uid"] for pod in pool.pods("worker")} == names
        assert pool.restarts() == 0
        assert missing == 0
        assert any(one.served[0] for one in again)
