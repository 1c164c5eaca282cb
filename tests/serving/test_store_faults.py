"""The shared store in trouble, behind two gateways and the real model: no request fails, no image is broken.

Each fault: a prompt whose latents are stored is asked again while the store misbehaves. It is served in full (or from a
smaller stored step), the image is a good one, and once the store is well again hits are back. docs/faults-cache.md has
the table.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from slow_proxy import SlowProxy
from store_scenes import Image8, Scene, assert_same, scene_of, until_hit
from t2i_cache.keys import LatentKey
from t2i_cache.stores import RedisStore, StoreLimits
from t2i_cache.stores.redis import open_redis
from t2i_policy.profile_document import render_profile
from t2i_testing_kit.serving import STEPS, Client, WritePool, make_profile
from t2i_testing_kit.valkey.server import ValkeyServer, valkey_server
from t2ictl.local_pool import LocalPool
from t2ictl.processes import ServerProcess

#: Three processes with a model and two embedders start before the first test.
pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]


#: Within the limit of any call, and long after a worker gives up waiting, also one that stands still for a while.
LATE_S = 1.8


@dataclass
class World:
    """Two gateways, one worker, a store behind a proxy, and the store's own door for mischief."""

    gateways: tuple[Client, Client]
    server: ValkeyServer
    proxy: SlowProxy
    store: RedisStore

    async def keys(self) -> list[LatentKey]:
        return [key async for key, _ in self.store.scan()]

    async def overwrite(self, change: Callable[[bytes], bytes]) -> None:
        """Change the bytes of every stored latent, behind everybody's back."""
        client = self.store._client
        for key in await self.keys():
            name = f"{self.store.prefix}l:{key.text}"
            await client.set(name, change(await client.get(name) or b""))


@asynccontextmanager
async def world_of(write_pool: WritePool, folder: Path) -> AsyncIterator[World]:
    with valkey_server(folder, "--maxmemory", "200mb") as server:
        async with SlowProxy(server.port) as proxy:
            made = write_pool(workers=1, engine="diffusion", slo_ms=60_000)
            assert made.profile is not None
            made.profile.write_text(render_profile(make_profile((0.05,))))
            text = made.pool_file.read_text()
            made.pool_file.write_text(text.replace("  gateway:", f'  cache: {{storeUrl: "{proxy.url}"}}\n  gateway:'))
            async with LocalPool(made) as pool:
                assert pool.gateway is not None
                assert made.folder is not None
                second = ServerProcess("gateway-2", "t2i_gateway", pool.gateway.arguments, made.folder)
                await second.start()
                try:
                    await second.wait_ready(60)
                    clients = (Client(pool.address), Client(second.address))
                    store = open_redis(server.url, "test", StoreLimits(1 << 32, 86_400.0), {})
                    yield World(clients, server, proxy, store)
                    await store.close()
                    for client in clients:
                        await client.channel.close()
                finally:
                    await second.stop(30)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(write_pool: WritePool, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world_of(write_pool, tmp_path_factory.mktemp("store")) as made:
        yield made


async def _nothing(_: World) -> None:
    """Some faults end by themselves."""


async def _kill(world: World) -> None:
    world.server.kill()


async def _start(world: World) -> None:
    world.server.start()


async def _pause(world: World) -> None:
    world.server.pause()


async def _resume(world: World) -> None:
    world.server.resume()


async def _slow(world: World) -> None:
    world.proxy.delay_s = LATE_S


async def _fast(world: World) -> None:
    world.proxy.delay_s = 0.0


async def _truncate(world: World) -> None:
    await world.overwrite(lambda data: data[: len(data) // 2])


async def _flip(world: World) -> None:
    await world.overwrite(lambda data: data[:-100] + bytes([data[-100] ^ 1]) + data[-99:])


async def _swap(world: World) -> None:
    """Sound records of another model's digest and of another key, in these keys' places."""
    keys = await world.keys()
    records = [await world.store.get(key) or b"" for key in keys]
    foreign = [data.replace(key.model.encode(), b"0" * len(key.model)) for key, data in zip(keys, records, strict=True)]
    for key, data in zip(keys, [*records[1:], foreign[0]], strict=True):
        await world.store._client.set(f"{world.store.prefix}l:{key.text}", data)


async def _vanish(world: World) -> None:
    """The index is ahead: vectors without latents, as when the server evicts on its own."""
    for key in await world.keys():
        await world.store._client.delete(f"{world.store.prefix}l:{key.text}")


async def _flush(world: World) -> None:
    world.server.command("FLUSHALL")


FAULTS: dict[str, tuple[Callable[[World], Awaitable[None]], Callable[[World], Awaitable[None]]]] = {
    "killed": (_kill, _start),
    "hanging": (_pause, _resume),
    "late": (_slow, _fast),
    "truncated values": (_truncate, _nothing),
    "a flipped bit": (_flip, _nothing),
    "records of other keys and models": (_swap, _nothing),
    "latents gone, index ahead": (_vanish, _nothing),
    "flushed": (_flush, _nothing),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_request_is_served_whatever_the_store_does(world: World, fault: str) -> None:
    """During the fault: all steps, and the very image of an exact request, through both gateways. Then hits again."""
    begin, end = FAULTS[fault]
    scene, (one, other) = scene_of(fault), world.gateways
    await scene.draw(one, seed=1, exact=True)
    await until_hit(scene, one)
    await until_hit(scene, other)
    await begin(world)
    try:
        during = [await scene.draw(client, seed) for seed, client in ((2, one), (3, other))]
    finally:
        await end(world)
    assert [skipped for skipped, _ in during] == [0, 0]
    for seed, (_, image) in zip((2, 3), during, strict=True):
        assert_same(image, (await scene.draw(one, seed, exact=True))[1])
    await until_hit(scene, one)
    await until_hit(scene, other)


STEPS_FAULTS = {"killed": (_kill, _start), "late": (_slow, _fast)}
IMAGES = 3  # of each gateway in each phase


@pytest.mark.parametrize("fault", STEPS_FAULTS)
async def test_fault_costs_the_steps_that_the_cache_saved(
    world: World, fault: str, record_property: Callable[[str, object], None]
) -> None:
    """Steps of all images: fewer than in full before it, all of them during it, fewer again after it. None fails."""
    begin, end = STEPS_FAULTS[fault]
    scene = scene_of(f"steps, {fault}")
    await scene.draw(world.gateways[0], seed=1, exact=True)
    await hit_both(scene, world)
    before = steps_of(await draw_all(scene, world))
    await begin(world)
    try:
        drawn = await draw_all(scene, world)
    finally:
        await end(world)
    await hit_both(scene, world)
    after, during = steps_of(await draw_all(scene, world)), steps_of(drawn)
    for seed, _, image in drawn:
        assert_same(image, (await scene.draw(world.gateways[0], seed, exact=True))[1])
    full = 2 * IMAGES * STEPS
    record_property("steps", {"before": before, "during": during, "after": after, "full": full})
    assert during == full
    assert before < full
    assert after < full


async def hit_both(scene: Scene, world: World) -> None:
    """Until both gateways serve from latents."""
    for client in world.gateways:
        await until_hit(scene, client)


async def draw_all(scene: Scene, world: World) -> list[tuple[int, int, Image8]]:
    """Ask each gateway for some images: seed, skipped steps, the image."""
    asked = [(seed, client) for seed in range(200, 200 + IMAGES) for client in world.gateways]
    drawn = [(seed, *await scene.draw(client, seed)) for seed, client in asked]
    assert {image.shape for _, _, image in drawn} == {(48, 48, 3)}
    return drawn


def steps_of(drawn: list[tuple[int, int, Image8]]) -> int:
    """Denoising steps that were run for all of them."""
    return sum(STEPS - skipped for _, skipped, _ in drawn)


async def test_full_store_keeps_serving(world: World) -> None:
    """No memory left in the server, all of it somebody else's: latents are not kept, images are made."""
    scene, (one, _) = scene_of("full"), world.gateways
    client = world.store._client
    await client.config_set("maxmemory", "1mb")
    try:
        assert [(await scene.draw(one, seed))[0] for seed in (1, 2)] == [0, 0]
    finally:
        await client.config_set("maxmemory", "200mb")
    await scene.draw(one, seed=4, exact=True)
    await until_hit(scene, one)


async def test_eviction_that_races_a_fetch_costs_no_image(world: World) -> None:
    """Latents go while they are asked for: every request ends in an image, in full or from the step that was asked."""
    scene, (one, other) = scene_of("race"), world.gateways
    exact = (await scene.draw(one, seed=1, exact=True))[1]
    await until_hit(scene, one)
    stop = asyncio.Event()

    async def evict() -> None:
        while not stop.is_set():
            await world.store.purge()
            await asyncio.sleep(0.02)

    racing = asyncio.create_task(evict())
    try:
        served = [await scene.draw(client, 1) for _ in range(4) for client in (one, other)]
    finally:
        stop.set()
        await racing
    assert {skipped for skipped, _ in served} <= {0, 10}
    for skipped, image in served:
        if not skipped:
            assert_same(image, exact)


async def test_what_one_gateway_stored_the_other_serves(world: World) -> None:
    """And never to another tenant."""
    scene, (one, other) = scene_of("two gateways"), world.gateways
    await scene.draw(one, seed=1, exact=True)
    await until_hit(scene, other)
    assert (await replace(scene, tenant="a-stranger").draw(other, seed=2))[0] == 0
