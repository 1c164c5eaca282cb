"""The door belongs to the gateway's process: it drains with it, tells what it takes, and writes no prompt anywhere."""

import asyncio
import io
import signal
from dataclasses import replace
from typing import Any

import openai
import pytest
from PIL import Image

from failing_workers import FailingWorker, gateway_of
from http_clients import client_of, http_of, opened
from t2i_testing_kit.serving import until
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
SECRET = "zqaxv zqbxv zqcxv"


@pytest.fixture(scope="module")
def options(write_pool: Any) -> LocalOptions:
    made: LocalOptions = write_pool(step_s=0.1)
    return made


@pytest.mark.parametrize("stream", [False, True])
async def test_sigterm_lets_what_runs_end(write_pool: Any, stream: bool) -> None:
    """The image arrives; who comes then is told to go elsewhere; the process ends with 0. The worker draws when it is
    told to, so that the image is under way for as long as the others ask.
    """
    worker = FailingWorker("sim-0", lambda *_: None, png())
    worker.may_draw.clear()
    listen = ("--listen-http", "127.0.0.1:0")
    async with gateway_of(write_pool(slo_ms=60_000), [worker], listen) as gateway, client_of(gateway) as client:
        assert gateway.process is not None
        asked = client.images.generate(prompt="a", stream=stream, extra_body={"exact": True})
        running = asyncio.ensure_future(last_of(asked) if stream else asked)
        await until("it is with the worker", lambda: asyncio.sleep(0, worker.running), lambda count: count == 1)
        async with http_of(gateway) as http:
            assert (await http.get("/readyz")).status_code == 200
            gateway.process.send_signal(signal.SIGTERM)
            while (await http.get("/readyz")).status_code == 200:
                pass
            assert (await http.get("/healthz")).status_code == 200
        with pytest.raises(openai.InternalServerError) as refused:
            await client.images.generate(prompt="b")
        assert refused.value.status_code == 503
        worker.may_draw.set()
        answer: Any = await running
        assert opened(answer.b64_json if stream else answer.data[0].b64_json).size == (48, 48)
        assert await gateway.process.wait() == 0


def png() -> bytes:
    """A file of an image."""
    file = io.BytesIO()
    Image.new("RGB", (48, 48)).save(file, "PNG")
    return file.getvalue()


async def last_of(asked: Any) -> Any:
    """The last event of a stream."""
    return [event async for event in await asked][-1]


async def test_without_an_address_there_is_no_http(write_pool: Any) -> None:
    """Nothing listens, and gRPC serves."""
    async with LocalPool(replace(write_pool(), listen_http="")) as pool:
        assert pool.http_address == ""
        assert pool.address


async def test_the_description_is_true_to_what_is_taken(pool: LocalPool) -> None:
    """Every documented value of every field is served; what is not documented is refused."""
    async with http_of(pool) as http:
        document = (await http.get("/openapi.json")).json()
        for path in ("/healthz", "/readyz", "/v1/models", "/v1/models/test"):
            assert (await http.get(path)).status_code == 200
        body = document["components"]["schemas"]["GenerationBody"]
        assert body["required"] == ["prompt"]
        assert not body["additionalProperties"]
        assert "48x48, 72x48" in body["properties"]["size"]["description"]
        for name, field in body["properties"].items():
            assert field["description"], name
            for value in documented_values(field):
                few = (
                    {} if name == "min_quality_percent" else {"num_inference_steps": 1}
                )  # a fixed schedule has no floor
                fields = {"prompt": "a", **few, name: value}
                answer = await http.post("/v1/images/generations", json=fields)
                assert answer.status_code == 200, (name, value, answer.text)


def documented_values(field: dict[str, Any]) -> list[Any]:
    """Of those that can be listed: constants, words, the ends of ranges, null."""
    kinds = field.get("anyOf", [field])
    values = [word for kind in kinds for word in kind.get("enum", [])]
    values += [kind[end] for kind in kinds for end in ("const", "minimum", "maximum") if end in kind]
    return [*values, *([None] if {"type": "null"} in kinds else [])]


async def test_no_prompt_is_written_down(pool: LocalPool) -> None:
    """Not by the server's log, nor with an error, nor from an address."""
    assert pool.gateway is not None
    async with http_of(pool) as http:
        for body in ({"prompt": SECRET, "num_inference_steps": 1}, {"prompt": SECRET, "n": SECRET}, {SECRET: SECRET}):
            await http.post("/v1/images/generations", json=body, params={"prompt": SECRET})
        await http.post("/v1/images/generations", content=SECRET, headers={"content-type": "application/json"})
        await http.get(f"/{SECRET}")
    written = pool.gateway.log_path.read_text()
    assert "serves on port" in written
    assert "zqaxv" not in written
