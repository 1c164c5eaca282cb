"""A store with TLS behind a real gateway and worker: whatever is wrong with its certificates, images are made."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from store_scenes import Scene, assert_same, scene_of, until_hit
from t2i_cache.stores.redis import TLS_VARIABLE
from t2i_policy.profile_document import render_profile
from t2i_testing_kit.mounted_secrets import TestAuthority, mount
from t2i_testing_kit.serving import Client, WritePool, make_profile
from t2i_testing_kit.valkey.server import ValkeyServer, valkey_server
from t2ictl.local_pool import LocalPool

pytestmark = [pytest.mark.process]
OURS, STRANGERS = TestAuthority("ours"), TestAuthority("strangers")
TOLD_WITHIN_S = 60.0
SERVER, CLIENT = OURS.issue("localhost"), OURS.issue("pool")
SECRET, URL = "cache.storeSecretRef", "cache.storeUrl"
FAULTS = {
    "wrong authority": (
        STRANGERS.issue("localhost", trusts=(OURS,)),
        CLIENT,
        f"{SECRET}: the server's",
    ),
    "expired": (
        OURS.issue("localhost", ends=timedelta(minutes=-1)),
        CLIENT,
        f"{URL}: the server's certificate",
    ),
    "wrong name": (OURS.issue("elsewhere"), CLIENT, f"{URL}: the server's certificate does not carry"),
    "no client certificate": (SERVER, {"ca.crt": OURS.pem}, f"{SECRET}: the server asks for a client"),
}


async def test_wrong_certificates_cost_the_cache_and_no_request(
    write_pool: WritePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fault: served in full, the very image of an exact request; both logs name the field; mended, hits again."""
    mount(tmp_path / "server", SERVER)
    mount(tmp_path / "client", CLIENT)
    monkeypatch.setenv(TLS_VARIABLE, str(tmp_path / "client"))
    with valkey_server(tmp_path, certificates=tmp_path / "server") as server:
        async with pool_of(write_pool, server.tls_url) as (pool, client):
            for name, (served, mounted, words) in FAULTS.items():
                scene = scene_of(f"tls, {name}")
                exact = (await scene.draw(client, seed=1, exact=True))[1]
                await until_hit(scene, client)
                restart(server, tmp_path, served, mounted)
                skipped, image = await scene.draw(client, seed=1)
                assert skipped == 0, name
                assert_same(image, exact)
                await told(pool, words, scene, client)
                restart(server, tmp_path, SERVER, CLIENT)
                await until_hit(scene, client)


@asynccontextmanager
async def pool_of(write_pool: WritePool, url: str) -> AsyncIterator[tuple[LocalPool, Client]]:
    """One gateway, one worker with the embedded model."""
    made = write_pool(workers=1, engine="diffusion", slo_ms=60_000)
    assert made.profile is not None
    made.profile.write_text(render_profile(make_profile((0.05,))))
    text = made.pool_file.read_text()
    made.pool_file.write_text(text.replace("  gateway:", f'  cache: {{storeUrl: "{url}"}}\n  gateway:'))
    async with LocalPool(made) as pool:
        client = Client(pool.address)
        yield pool, client
        await client.channel.close()


def restart(server: ValkeyServer, folder: Path, served: dict[str, bytes], mounted: dict[str, bytes]) -> None:
    """The server comes back empty with these certificates; no connection outlives it."""
    server.kill()
    mount(folder / "server", served)
    mount(folder / "client", mounted)
    server.start()


async def told(pool: LocalPool, words: str, scene: Scene, client: Client) -> None:
    """Ask until the gateway's log and the worker's hold these words; every request is served."""
    assert pool.gateway is not None
    logs = [process.log_path for process in (pool.gateway, *pool.workers)]
    async with asyncio.timeout(TOLD_WITHIN_S):
        while not all(words in log.read_text() for log in logs):
            assert (await scene.draw(client, seed=2))[0] == 0
