"""Images by link: kept in a bucket of a real S3 server, opened by whoever has the link, refused where there is none."""

import asyncio
import base64
import re
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import openai
import pytest
import pytest_asyncio
import yaml
from prometheus_client import CollectorRegistry

from t2i_api.results import ResultsPart
from t2i_gateway.errors import ResultsNotKept
from t2i_gateway.metrics import GatewayMetrics
from t2i_gateway.results import MAX_AT_ONCE, ResultStore, open_results
from t2i_runtime.errors import TokensUnusable
from t2i_testing_kit.s3_server import s3_server
from t2i_testing_kit.serving import WITHIN_S, WritePool, metric
from t2ictl.errors import StartFailed
from t2ictl.local_pool import LocalOptions, LocalPool
from t2ictl.processes import ServerProcess

BUCKET, KEY_ID = "images", "made-up-key-id"
pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A bucket on a real server."""
    with s3_server() as address:
        assert httpx.put(f"{address}/{BUCKET}", headers=signed(), timeout=60).status_code == 200
        yield address


def signed() -> dict[str, str]:
    """Enough for the server to know who asks."""
    scope = f"{KEY_ID}/20260101/us-east-1/s3/aws4_request"
    return {"authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0"}


@pytest.fixture(scope="module")
def options(write_pool: WritePool, server: str, tmp_path_factory: pytest.TempPathFactory) -> LocalOptions:
    """A pool with a bucket and its Secret."""
    made, folder = write_pool(), tmp_path_factory.mktemp("secrets")
    document = yaml.safe_load(made.pool_file.read_text())
    results = {"url": f"s3://{BUCKET}/drawn", "secretName": "bucket", "endpoint": server, "linkSeconds": 600}
    document["spec"]["gateway"]["results"] = results
    made.pool_file.write_text(yaml.safe_dump(document))
    (folder / "bucket").mkdir()
    (folder / "bucket" / "access_key_id").write_text(KEY_ID)
    (folder / "bucket" / "secret_access_key").write_text("made-up-secret\n")
    return replace(made, secrets=folder)


@pytest_asyncio.fixture(loop_scope="module")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60) as one:
        yield one


async def test_links_are_signed_and_cannot_be_guessed(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, server: str
) -> None:
    """Each opens one image for a while; who has one must not find the next."""
    drawn = await client.images.generate(prompt="a red circle", n=2, response_format="url")
    links = [one.url or "" for one in drawn.data or ()]
    assert [one.b64_json for one in drawn.data or ()] == [None, None]
    assert len({urlsplit(link).path for link in links}) == 2
    for link in links:
        assert link.startswith(f"{server}/{BUCKET}/drawn/")
        said = parse_qs(urlsplit(link).query)
        assert said["X-Amz-Expires"] == ["600"]
        assert said["X-Amz-Signature"]
        assert len(Path(urlsplit(link).path).stem) == 32
        answer = await http.get(link)
        assert answer.headers["content-type"] == "image/png"
        assert answer.content[:4] == b"\x89PNG"


async def test_image_is_the_same_by_link_and_in_the_answer(client: openai.AsyncOpenAI, http: httpx.AsyncClient) -> None:
    """Whoever asks by link must get the same bytes as whoever asks for base64."""
    for output_format in ("png", "webp"):
        body: dict[str, Any] = {"prompt": "a red circle", "output_format": output_format, "extra_body": {"seed": 9}}
        by_link = await client.images.generate(response_format="url", **body)
        inside = await client.images.generate(response_format="b64_json", **body)
        got = await http.get((by_link.data or [])[0].url or "")
        assert got.headers["content-type"] == f"image/{output_format}"
        assert got.content == base64.b64decode((inside.data or [])[0].b64_json or "")


async def test_stream_with_links_is_refused(client: openai.AsyncOpenAI) -> None:
    """OpenAI's streams have base64 only; a client that expects links there would wait for them in vain."""
    with pytest.raises(openai.BadRequestError) as refused:
        await client.images.generate(prompt="a red circle", response_format="url", extra_body={"stream": True})
    assert refused.value.param == "response_format"
    assert "b64_json" in refused.value.message


async def test_bucket_that_fails_is_a_clear_error(
    pool: LocalPool, client: openai.AsyncOpenAI, http: httpx.AsyncClient, server: str
) -> None:
    """The client may try again or ask for base64; nothing else suffers, and it works again when the bucket does."""
    listed = await http.get(f"{server}/{BUCKET}", headers=signed())
    for key in re.findall("<Key>([^<]+)</Key>", listed.text):
        await http.delete(f"{server}/{BUCKET}/{key}", headers=signed())
    assert (await http.delete(f"{server}/{BUCKET}", headers=signed())).status_code == 204
    asked = [client.images.generate(prompt="a red circle", response_format="url") for _ in range(3)]
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert {one.status_code for one in ended if isinstance(one, openai.APIStatusError)} == {503}
    assert "ask for b64_json" in str(ended[0])
    assert (await client.images.generate(prompt="a red circle")).data
    assert pool.gateway is not None
    assert await metric(pool.gateway, 't2i_gateway_results_seconds_count{outcome="failed"}') == 3
    log = pool.gateway.log_path.read_text()
    assert "gateway.results: an image was not kept" in log
    assert "drawn/" not in log, "whoever reads the log must not learn names that open images"
    assert (await http.put(f"{server}/{BUCKET}", headers=signed())).status_code == 200
    assert (await client.images.generate(prompt="a red circle", response_format="url")).data


def store_of(**results: Any) -> tuple[ResultStore, list[str]]:
    """A store alone, and how its work ended."""
    ended: list[str] = []
    part = ResultsPart.model_validate({"url": f"s3://{BUCKET}", **results})
    return ResultStore(part, None, lambda outcome, _: ended.append(outcome)), ended


async def test_links_of_a_public_bucket_are_plain(
    server: str, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CDN in front of the bucket has its own address, and caches by it: no signature in there. Without a Secret the
    environment opens the bucket.
    """
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up-secret")
    store, ended = store_of(endpoint=server, publicBaseUrl=f"{server}/{BUCKET}/")
    (link,) = await store.keep([b"picture"], "jpeg")
    assert re.fullmatch(rf"{server}/{BUCKET}/[-_A-Za-z0-9]{{32}}\.jpeg", link)
    assert (await http.get(link, headers=signed())).content == b"picture"
    assert ended == ["kept"]


@pytest.mark.parametrize("silent", [True, False], ids=["a server that never answers", "a server that is away"])
async def test_waiting_for_a_bucket_has_an_end(silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client must not wait for a server that does not answer; and those behind it must get their turn."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up-secret")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if not silent:
            listener.close()
        store, ended = store_of(endpoint=f"http://127.0.0.1:{port}", timeoutMilliseconds=200)
        asked = [store.keep([b"picture"] * 4, "png") for _ in range(2 * MAX_AT_ONCE)]
        errors = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(error) for error in errors} == {ResultsNotKept}
    assert set(ended) <= {"late", "failed"}


async def test_secret_without_a_key_is_told_at_the_start(tmp_path: Path) -> None:
    """Rather than at the first request that asks for a link."""
    part = ResultsPart.model_validate({"url": f"s3://{BUCKET}", "secretName": "bucket"})
    (tmp_path / "access_key_id").write_text(KEY_ID)
    for folder, missing in ((tmp_path, "secret_access_key"), (None, "--results-dir"), (tmp_path / "no", "is empty")):
        with pytest.raises(TokensUnusable, match=rf"gateway\.results\.secretName.*{missing}"):
            open_results(part, folder, GatewayMetrics(CollectorRegistry()))


async def test_a_gateway_without_workers_tells_of_a_missing_secret(options: LocalOptions, tmp_path: Path) -> None:
    """Its last words reach the pool's conditions, so that nobody waits for warm workers first."""
    files = ["--pool", str(options.pool_file), "--profile", str(options.profile), "--workers", "127.0.0.1:1"]
    doors = ["--local", "--listen-http", "127.0.0.1:0", "--results-dir", str(tmp_path / "not-mounted")]
    gateway = ServerProcess("gateway", "t2i_gateway", [*files, *doors], tmp_path)
    await gateway.start()
    with pytest.raises(StartFailed, match=r"cannot start: gateway\.results\.secretName: .*create the Secret"):
        await gateway.wait_ready(WITHIN_S)
