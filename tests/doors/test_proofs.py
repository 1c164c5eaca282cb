"""Who gets in by HTTP: the same proofs as with gRPC, over the same certificates, which change while it serves."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from t2i_runtime.tokens import line_of, new_token
from t2i_testing_kit.mounted_secrets import TestAuthority, mount
from t2i_testing_kit.secured_pool import GATEWAY, MUTUAL, TOKEN, SecuredPool
from t2i_testing_kit.serving import WITHIN_S

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
ACME = new_token()
QUICK: dict[str, Any] = {"num_inference_steps": 1, "seed": 1}
RELOADED = 't2i_gateway_secret_reloads_total{outcome="in_force",use="clients"}'


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def token_pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredPool]:
    """Clients have bearer tokens."""
    folder = tmp_path_factory.mktemp("token")
    async with SecuredPool(folder, TOKEN, tokens=line_of(ACME, "acme")) as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mutual_pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredPool]:
    """Clients have certificates."""
    async with SecuredPool(tmp_path_factory.mktemp("mutual"), MUTUAL) as started:
        yield started


def trusting(pool: SecuredPool, folder: Path, shown: dict[str, bytes] | None = None) -> ssl.SSLContext:
    """What a client's connection trusts and shows."""
    context = ssl.create_default_context(cadata=pool.clients.pem.decode())
    if shown is not None:
        mount(folder / "shown", shown)
        context.load_cert_chain(folder / "shown" / "tls.crt", folder / "shown" / "tls.key")
    return context


def client_of(pool: SecuredPool, context: ssl.SSLContext, token: str = "none") -> openai.AsyncOpenAI:
    base = f"https://localhost:{pool.gateway.http_address.rpartition(':')[2]}/v1"
    http = httpx.AsyncClient(verify=context, timeout=WITHIN_S)
    return openai.AsyncOpenAI(base_url=base, api_key=token, http_client=http, max_retries=0, timeout=WITHIN_S)


async def story_of(client: openai.AsyncOpenAI, key: str = "", **headers: str) -> dict[str, Any]:
    """Our part of the answer about the one image."""
    given = {**headers, **({"Idempotency-Key": key} if key else {})}
    answer = await client.images.generate(prompt="a red circle", extra_body=QUICK, extra_headers=given)
    story: dict[str, Any] = answer.to_dict()["t2i"]["images"][0]  # type: ignore[index]
    return story


async def test_the_api_key_is_the_token(token_pool: SecuredPool, tmp_path: Path) -> None:
    """Whoever has none is told so, on every route but those of probes, and is counted."""
    context = trusting(token_pool, tmp_path)
    async with client_of(token_pool, context, ACME) as client:
        assert (await story_of(client))["seed"] == 1
        assert [model.id async for model in await client.models.list()] == ["p", "scenes"]
        host = client.base_url.copy_with(path="/")
    async with client_of(token_pool, context, new_token()) as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            await story_of(stranger)
        assert (refused.value.code, refused.value.type) == ("invalid_api_key", "invalid_request_error")
        assert refused.value.response.headers["www-authenticate"] == "Bearer"
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()
    async with httpx.AsyncClient(verify=context, base_url=host, timeout=WITHIN_S) as http:
        assert (await http.get("/readyz")).status_code == 200
        assert (await http.post("/v1/images/generations", json={"prompt": "a"})).status_code == 401
    assert await token_pool.metric('t2i_gateway_unauthenticated_total{reason="TokenUnknown"}') == 2
    assert await token_pool.metric('t2i_gateway_unauthenticated_total{reason="NoToken"}') == 1


async def test_a_certificate_names_the_tenant(mutual_pool: SecuredPool, tmp_path: Path) -> None:
    """A repeat of a key is one within a tenant only; no header makes another tenant."""
    issue = mutual_pool.clients.issue
    async with client_of(mutual_pool, trusting(mutual_pool, tmp_path, issue("spiffe://td/acme"))) as acme:
        assert not (await story_of(acme, "a-key"))["replayed"]
        assert (await story_of(acme, "a-key", **{"x-t2i-tenant": "spiffe://td/other"}))["replayed"]
    async with client_of(mutual_pool, trusting(mutual_pool, tmp_path, issue("spiffe://td/other"))) as other:
        assert not (await story_of(other, "a-key"))["replayed"]
    async with client_of(mutual_pool, trusting(mutual_pool, tmp_path, issue("a.example", "b.example"))) as unclear:
        with pytest.raises(openai.AuthenticationError):
            await story_of(unclear)


async def test_no_certificate_or_a_strangers_does_not_connect(mutual_pool: SecuredPool, tmp_path: Path) -> None:
    """The handshake fails, before a request is read."""
    for shown in (None, TestAuthority("strangers").issue("spiffe://td/acme")):
        async with client_of(mutual_pool, trusting(mutual_pool, tmp_path, shown)) as client:
            with pytest.raises(openai.APIConnectionError):
                await story_of(client)


async def test_changed_certificates_are_taken_up(mutual_pool: SecuredPool, tmp_path: Path) -> None:
    """New connections see the new one, and authorities that were withdrawn let nobody in any more."""
    later = TestAuthority("later")
    before = await mutual_pool.metric(RELOADED)
    mount(mutual_pool.folder / "tls", mutual_pool.clients.issue("localhost", GATEWAY, trusts=[later]))
    await mutual_pool.until("read again", lambda: mutual_pool.metric(RELOADED), lambda now: now > before)
    async with client_of(mutual_pool, trusting(mutual_pool, tmp_path, later.issue("spiffe://td/acme"))) as known:
        assert (await story_of(known))["seed"] == 1
    withdrawn = mutual_pool.clients.issue("spiffe://td/acme")
    async with client_of(mutual_pool, trusting(mutual_pool, tmp_path, withdrawn)) as client:
        with pytest.raises(openai.APIConnectionError):
            await story_of(client)
