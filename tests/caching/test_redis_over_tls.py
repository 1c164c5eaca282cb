"""rediss:// against a real Valkey with TLS: who is trusted, and which field the error names when somebody is not."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from t2i_cache.errors import StoreUnavailable, StoreUrlError
from t2i_cache.keys import LatentKey
from t2i_cache.stores import RedisStore, StoreLimits
from t2i_cache.stores.redis import TLS_VARIABLE, open_redis
from t2i_cache.stores.redis.circuit_breaker import PATIENCE, CircuitBreaker
from t2i_testing_kit.mounted_secrets import TestAuthority, mount
from t2i_testing_kit.valkey.server import PASSWORD, ValkeyServer, valkey_server

KEY = LatentKey("alice", "model", "cat", 5)
OURS, STRANGERS = TestAuthority("ours"), TestAuthority("strangers")
GONE = timedelta(minutes=-1)
TOLD_WITHIN_S = 60.0
Files = dict[str, bytes]


def store_at(url: str, folder: Path | None) -> RedisStore:
    """With the Secret mounted at `folder`."""
    return open_redis(url, "pool", StoreLimits(1000, 60.0), {TLS_VARIABLE: str(folder)} if folder else {})


async def test_store_serves_over_tls_to_a_client_with_a_certificate(tmp_path: Path) -> None:
    """Bytes written through one connection are read through another."""
    mount(tmp_path / "server", OURS.issue("localhost"))
    client = mount(tmp_path / "client", OURS.issue("pool"))
    with valkey_server(tmp_path, certificates=tmp_path / "server") as server:
        for seen in (None, b"x"):
            store = store_at(server.tls_url, client)
            assert await store.get(KEY) == seen
            await store.put(KEY, b"x")
            await store.close()


SECRET, URL = "cache.storeSecretRef: ", "cache.storeUrl: "
TROUBLE: dict[str, tuple[Files, Files, str]] = {
    "an authority that ca.crt does not hold": (
        STRANGERS.issue("localhost", trusts=(OURS,)),
        OURS.issue("pool"),
        f"{SECRET}the server's certificate is not signed by an authority of the Secret's ca.crt",
    ),
    "a certificate of the server that has expired": (
        OURS.issue("localhost", ends=GONE),
        OURS.issue("pool"),
        f"{URL}the server's certificate has expired",
    ),
    "a certificate of another server": (
        OURS.issue("elsewhere"),
        OURS.issue("pool"),
        f"{URL}the server's certificate does not carry the URL's host",
    ),
    "no client certificate": (
        OURS.issue("localhost"),
        {"ca.crt": OURS.pem},
        f"{SECRET}the server asks for a client certificate: put tls.crt and tls.key",
    ),
    "a client certificate of strangers": (
        OURS.issue("localhost"),
        {**STRANGERS.issue("pool"), "ca.crt": OURS.pem},
        f"{SECRET}the server refuses the Secret's tls.crt",
    ),
    "a client certificate that has expired": (
        OURS.issue("localhost"),
        OURS.issue("pool", ends=GONE),
        f"{SECRET}the server refuses the Secret's tls.crt",
    ),
    "a key of another certificate": (
        OURS.issue("localhost"),
        {**OURS.issue("pool"), "tls.key": OURS.issue("pool")["tls.key"]},
        f"{SECRET}the Secret's ca.crt, tls.crt or tls.key cannot be used",
    ),
    "a ca.crt that is none": (
        OURS.issue("localhost"),
        {"ca.crt": b"none"},
        f"{SECRET}the Secret's ca.crt, tls.crt or tls.key cannot be used",
    ),
}


@pytest.mark.parametrize(("served", "mounted", "words"), TROUBLE.values(), ids=TROUBLE.keys())
async def test_error_names_the_field(tmp_path: Path, served: Files, mounted: Files, words: str) -> None:
    """Unavailable, so callers go on without the cache; also in the words of the rest. Mended, it serves."""
    mount(tmp_path / "server", served)
    client = mount(tmp_path / "client", mounted)
    with valkey_server(tmp_path, certificates=tmp_path / "server") as server:
        store = store_at(server.tls_url, client)
        await refused_with(store, words)
        said = [await refusal(store) for _ in range(PATIENCE + 1)]
        assert said[-1].removeprefix("left alone for a moment after failures: ") in said[:-1]
        await mended(server, store, tmp_path)
        await store.close()


async def refusal(store: RedisStore) -> str:
    """What the error says that a call must end in."""
    with pytest.raises(StoreUnavailable) as error:
        await store.get(KEY)
    return str(error.value).removeprefix("latent store: ")


async def refused_with(store: RedisStore, words: str) -> None:
    """Call until the error begins so: a server that closes at once may cut off its own reason, now and then."""
    async with asyncio.timeout(TOLD_WITHIN_S):
        while not (await refusal(store)).startswith(words):
            store._resting = CircuitBreaker()
    store._resting = CircuitBreaker()


async def mended(server: ValkeyServer, store: RedisStore, folder: Path) -> None:
    """Both sides get good certificates; the store that was opened before takes them up."""
    server.kill()
    mount(folder / "server", OURS.issue("localhost"))
    mount(folder / "client", OURS.issue("pool"))
    server.start()
    store._resting = CircuitBreaker()
    await store.put(KEY, b"x")
    assert await store.get(KEY) == b"x"


async def test_authority_may_change_while_the_store_is_open(tmp_path: Path) -> None:
    """Certificates are read at each connection: connections that were lost come back under the new authority."""
    mount(tmp_path / "server", OURS.issue("localhost"))
    client = mount(tmp_path / "client", OURS.issue("pool"))
    with valkey_server(tmp_path, certificates=tmp_path / "server") as server:
        store = store_at(server.tls_url, client)
        await store.put(KEY, b"x")
        server.kill()
        new = TestAuthority("new")
        mount(tmp_path / "server", new.issue("localhost"))
        mount(client, new.issue("pool"))
        server.start()
        await store.put(KEY, b"y")
        assert await store.get(KEY) == b"y"
        await store.close()


async def test_ca_of_the_secret_is_all_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the system's authorities too: those sign for whoever owns a name somewhere. Without ca.crt they count."""
    system = tmp_path / "system.pem"
    system.write_bytes(STRANGERS.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    mount(tmp_path / "server", STRANGERS.issue("localhost"))
    with valkey_server(tmp_path, "--tls-auth-clients", "no", certificates=tmp_path / "server") as server:
        trusting = store_at(server.tls_url, None)
        assert await trusting.get(KEY) is None
        strict = store_at(server.tls_url, mount(tmp_path / "client", {"ca.crt": OURS.pem}))
        with pytest.raises(StoreUnavailable, match="is not signed by an authority"):
            await strict.get(KEY)
        for store in (trusting, strict):
            await store.close()


@pytest.mark.parametrize(
    "url",
    [lambda server: server.tls_url.replace("rediss", "redis"), lambda server: f"rediss://localhost:{server.port}"],
    ids=["in clear to a port with TLS", "TLS to a port in clear"],
)
async def test_tls_on_one_side_alone_is_unavailable(tmp_path: Path, url: Callable[[ValkeyServer], str]) -> None:
    """Neither side understands the other; the call ends within its limit."""
    mount(tmp_path / "server", OURS.issue("localhost"))
    client = mount(tmp_path / "client", OURS.issue("pool"))
    with valkey_server(tmp_path, certificates=tmp_path / "server") as server:
        store = store_at(url(server), client)
        with pytest.raises(StoreUnavailable):
            await store.get(KEY)
        await store.close()


async def test_password_is_asked_for_over_tls_too(tmp_path: Path) -> None:
    """A missing one names the Secret; the message does not hold any."""
    mount(tmp_path / "server", OURS.issue("localhost"))
    client = mount(tmp_path / "client", OURS.issue("pool"))
    with valkey_server(tmp_path, "--requirepass", PASSWORD, certificates=tmp_path / "server") as server:
        store = store_at(server.tls_url, client)
        with pytest.raises(StoreUnavailable, match=r"storeSecretRef: the server refuses .* username and password"):
            await store.get(KEY)
        await store.close()


def test_folder_without_certificates_is_refused_at_the_start(tmp_path: Path) -> None:
    """With the field and the keys that the Secret must have."""
    with pytest.raises(StoreUrlError, match=r"must hold ca.crt.*cache.storeSecretRef"):
        store_at("rediss://localhost:6379", tmp_path)
