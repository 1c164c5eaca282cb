"""Workers with latent folders of their own, as real processes: bounded, promised only where they lie, told anew."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import grpc
import numpy as np
import pytest
import pytest_asyncio

from own_stores import OwnStores, disk_bytes
from t2i_policy.profile_document import render_profile
from t2i_protos.v1 import gateway_pb2, level_pb2, worker_pb2, worker_pb2_grpc
from t2i_testing_kit.cached_prompts import captions
from t2i_testing_kit.serving import Client, WritePool, make_profile, metric, metrics_text, until
from t2ictl.local_pool import LocalOptions
from t2ictl.processes import ServerProcess

pytestmark = [pytest.mark.process, pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]
Request = gateway_pb2.GenerateRequest
MIB = 1 << 20
PROMPT = "a big red circle left of a small blue square on a plain green background"
REPEATS, SEED = 36, 1
LIMIT_S = 240.0


def small_cache(options: LocalOptions, **cache: int) -> LocalOptions:
    """With a cache of these limits."""
    limits = ", ".join(f"{name}: {value}" for name, value in cache.items())
    with options.pool_file.open("a") as file:
        file.write(f"  cache: {{{limits}}}\n")
    assert options.profile is not None
    options.profile.write_text(render_profile(make_profile((0.05,))))
    return options


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(write_pool: WritePool) -> AsyncIterator[OwnStores]:
    """Three workers."""
    options = small_cache(write_pool(workers=3, engine="diffusion", slo_ms=200_000), capacityMebibytes=64)
    async with OwnStores(options) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def client(pool: OwnStores) -> AsyncIterator[Client]:
    one = Client(pool.address)
    yield one
    await one.channel.close()


async def promised_and_served(client: Client, prompts: list[str], tenant: str = "") -> Counter[tuple[int, int]]:
    """All at once: steps that `accepted` says are skipped, and steps that `done` says were."""
    asked = (client.events(Request(prompt=prompt, seed=SEED), LIMIT_S, tenant) for prompt in prompts)
    streams = await asyncio.gather(*asked)
    return Counter(
        (events[0].accepted.decision.served.skipped_steps, events[-1].done.served.skipped_steps) for events in streams
    )


async def test_what_is_promised_is_served(pool: OwnStores, client: Client) -> None:
    """36 repeats at once of what one of three workers has: none is promised a latent that its worker lacks."""
    await client.done(Request(prompt=PROMPT, seed=SEED, exact=True), LIMIT_S)
    first = await promised_and_served(client, [PROMPT] * REPEATS)
    again = await promised_and_served(client, [PROMPT] * REPEATS)
    assert pool.gateway is not None
    metrics = await asyncio.to_thread(metrics_text, pool.gateway)
    misses = re.findall(r"^t2i_gateway_latent_misses_total{.*", metrics, re.MULTILINE)
    assert {promised - served for promised, served in first + again} == {0}, misses
    assert first[10, 10] > 0
    assert again[10, 10] > REPEATS // 2  # who ran in full left a copy
    assert not misses


async def test_latents_of_another_worker_are_reached_there(pool: OwnStores, client: Client) -> None:
    """One after the other: each goes where its latent lies, unless another worker is faster in full, and says which."""
    prompts = captions(6, seed=5)
    for prompt in prompts:
        await client.done(Request(prompt=prompt, seed=SEED, exact=True), LIMIT_S, tenant="idle")
    found = Counter[tuple[int, int, str]]()
    for prompt in prompts:
        events = await client.events(Request(prompt=prompt, seed=SEED), LIMIT_S, tenant="idle")
        promised, done = events[0].accepted.decision.served, events[-1].done
        found[promised.skipped_steps, done.served.skipped_steps, done.reason] += 1
    resumed, in_full = (10, 10, "SameImageCached"), (0, 0, "LatentElsewhere")
    assert found[resumed] + found[in_full] == len(prompts), found
    assert found[resumed] > 0


async def test_restarted_gateway_learns_what_lies_where(pool: OwnStores, client: Client) -> None:
    """It is killed; the next one has all entries from the workers, and promises what they hold."""
    tenant, prompts = "restart", captions(4, seed=9)
    for prompt in prompts:
        await client.done(Request(prompt=prompt, seed=SEED, exact=True), LIMIT_S, tenant)
    gateway = pool.gateway
    assert gateway is not None
    assert gateway.process is not None
    stored = [await metric(worker, "t2i_worker_latent_store_entries") for worker in pool.workers]
    gateway.process.kill()
    await gateway.process.wait()
    gateway.arguments = [*gateway.arguments, "--listen", gateway.address]
    await gateway.start()
    await gateway.wait_ready(60)
    await until("the gateway knows", lambda: metric(gateway, "t2i_gateway_cache_entries"), lambda at: at >= max(stored))
    found = await promised_and_served(client, prompts, tenant)
    assert {promised - served for promised, served in found} == {0}
    assert found[10, 10] > 0


async def draw_in_full(worker: ServerProcess, names: range) -> None:
    """So many prompts of four steps, as a gateway would have them kept; four at once."""
    level = level_pb2.Level(num_inference_steps=4)
    async with grpc.aio.insecure_channel(worker.address) as channel:
        stub = worker_pb2_grpc.WorkerStub(channel)

        async def draw(number: int) -> None:
            sink = worker_pb2.LatentSink(scope="scope", entry_id=f"{number:032x}")
            sink.embedding = np.full(64, number + 1, "<f4").tobytes()
            order = worker_pb2.WorkerGenerateRequest(
                prompt=PROMPT, seed=number, width=48, height=48, guidance_scale=2.0, level=level, sink=sink
            )
            assert [event async for event in stub.Generate(order, timeout=LIMIT_S)][-1].HasField("finished")

        for start in range(names.start, names.stop, 4):
            await asyncio.gather(*(draw(number) for number in range(start, start + 4)))


async def test_folder_stays_under_capacity_also_across_a_restart(
    write_pool: WritePool, record_property: Callable[[str, object], None]
) -> None:
    """120 prompts with 1 MiB, and the worker is killed in the middle: at no moment does its folder take more."""
    options = small_cache(write_pool(workers=1, engine="diffusion"), capacityMebibytes=1)
    text = options.pool_file.read_text().replace("numInferenceSteps: 20", "numInferenceSteps: 4")
    options.pool_file.write_text(re.sub(r"levels: .*", "levels: [{skippedSteps: 0}, {skippedSteps: 3}]", text))
    async with OwnStores(replace(options, profile=None), with_gateway=False) as pool:  # it is of 20 steps
        (worker,) = pool.workers
        root, seen, stop = pool.store_of(worker.name), [0], asyncio.Event()

        async def look() -> None:
            while not stop.is_set():
                seen.append(await asyncio.to_thread(disk_bytes, root))
                await asyncio.sleep(0.005)  # or the looks take the CPU that the worker draws with

        looking = asyncio.create_task(look())
        try:
            await draw_in_full(worker, range(60))
            assert worker.process is not None
            worker.process.kill()
            await worker.process.wait()
            left = await asyncio.to_thread(disk_bytes, root)
            worker.arguments = [*worker.arguments, "--listen", worker.address]
            await worker.start()
            await worker.wait_ready(LIMIT_S)
            assert await metric(worker, "t2i_worker_latent_store_entries") > 0
            await draw_in_full(worker, range(60, 120))
        finally:
            stop.set()
            await looking
        evicted = await metric(worker, 't2i_worker_latents_gone_total{reason="Capacity"}')
        record_property("bytes", {"most": max(seen), "looks": len(seen), "left": left, "evicted": evicted})
        assert MIB // 2 < max(seen) <= MIB
        assert evicted > 40
        assert await metric(worker, "t2i_worker_latent_store_bytes") <= MIB
        assert await metric(worker, "t2i_worker_latent_store_full_total") == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone(write_pool: WritePool) -> AsyncIterator[OwnStores]:
    """One worker, whose latents serve three images each."""
    options = small_cache(write_pool(workers=1, engine="diffusion", slo_ms=200_000), capacityMebibytes=4, maxReuses=3)
    async with OwnStores(options) as started:
        yield started


async def skipped_steps(pool: OwnStores, tenant: str, repeats: int) -> list[int]:
    """Of so many repeats, one after the other."""
    client = Client(pool.address)
    try:
        done = [await client.done(Request(prompt=PROMPT, seed=SEED), LIMIT_S, tenant) for _ in range(repeats)]
    finally:
        await client.channel.close()
    return [one.served.skipped_steps for one in done]


async def test_latent_that_vanished_is_not_promised_twice(alone: OwnStores) -> None:
    """Its file goes behind everybody's back: one request starts from noise; the next one's run is kept again."""
    store = alone.store_of(alone.workers[0].name)
    assert await skipped_steps(alone, "vanish", 1) == [0]
    for path in store.rglob("*.latent"):
        path.unlink()
    assert await skipped_steps(alone, "vanish", 3) == [0, 0, 10]


async def test_latent_serves_no_more_often_than_allowed_on_disk(alone: OwnStores) -> None:
    """Three repeats start from it; then it is off the disk and promised to nobody."""
    worker = alone.workers[0]
    assert await skipped_steps(alone, "often", 5) == [0, 10, 10, 10, 0]
    assert await metric(worker, 't2i_worker_latents_gone_total{reason="WornOut"}') == 1
