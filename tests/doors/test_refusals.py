"""Each error arrives as the class of the official client that its users catch, with what to do about it."""

import asyncio
import json
from typing import Any

import openai
import pytest

from http_clients import client_of, http_of
from t2i_testing_kit.serving import load_until, metric, until
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
ROUTE = "/v1/images/generations"


@pytest.fixture(scope="module")
def options(write_pool: Any) -> LocalOptions:
    """One worker that draws one image at a time, in two seconds; one more may wait."""
    made: LocalOptions = write_pool(step_s=0.1, cap=1, slo_ms=3_000, max_queued=1)
    return made


def status_metric(route: str, status: int) -> str:
    return f't2i_gateway_http_requests_total{{route="{route}",status="{status}"}}'


async def test_an_unknown_model_is_not_found(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await client.images.generate(prompt="a", model="dall-e-3")
    assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
    assert "test or scenes" in refused.value.message
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("dall-e-3")


async def test_a_full_queue_tells_when_to_come_back(client: openai.AsyncOpenAI, pool: LocalPool) -> None:
    """In whole seconds for everybody, in milliseconds for OpenAI's clients. All images are refused together."""
    running = asyncio.ensure_future(client.images.generate(prompt="a"))
    await load_until(pool.workers[0].address, lambda load: load.running == 1)
    with pytest.raises(openai.RateLimitError) as refused:
        await client.images.generate(prompt="a", n=4)
    assert (await running).data
    headers = refused.value.response.headers
    assert int(headers["retry-after"]) >= 1
    assert float(headers["retry-after-ms"]) > 0
    assert refused.value.code in ("QueueFull", "Overloaded")
    assert refused.value.type == "rate_limit_error"
    await counted(pool, status_metric(ROUTE, 429), 1)
    await counted(pool, "t2i_gateway_in_flight_requests", 0)


async def test_a_client_without_patience_is_told_at_once(pool: LocalPool) -> None:
    """Its own timeout is the deadline, so nothing is drawn that nobody would wait for: here an image of 10 s."""
    async with client_of(pool).with_options(timeout=9.0) as client:  # for an image of 10 s
        with pytest.raises(openai.InternalServerError) as refused:
            await client.images.generate(prompt="a", extra_body={"num_inference_steps": 100})
    assert refused.value.status_code == 504
    assert refused.value.code == "DeadlineUnreachable"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_its_place(pool: LocalPool, stream: bool) -> None:
    """Within a step of the worker, whether it waits for an answer or reads a stream."""
    assert pool.gateway is not None
    name = status_metric(ROUTE, 499)
    before = await metric(pool.gateway, name)
    async with client_of(pool) as client:
        asked = client.images.generate(prompt="a", stream=stream, extra_body={"num_inference_steps": 100})
        drawing = asyncio.ensure_future(read(asked) if stream else asked)
        await load_until(pool.workers[0].address, lambda load: load.running == 1)
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)
    await load_until(pool.workers[0].address, lambda load: load.running == 0)
    await counted(pool, name, before + 1)
    await counted(pool, "t2i_gateway_in_flight_requests", 0)


async def counted(pool: LocalPool, name: str, times: float) -> None:
    """The client has its answer a moment before the gateway counts its end."""
    gateway = pool.gateway
    assert gateway is not None
    await until(f"{name} is {times}", lambda: metric(gateway, name), lambda seen: seen == times)


async def read(asked: Any) -> None:
    """A stream to its end."""
    async for _ in await asked:
        pass


async def test_a_lost_worker_ends_a_stream_with_an_error(write_pool: Any) -> None:
    """After the headers there is no status to give; the client raises what the error event says."""
    async with LocalPool(write_pool(step_s=0.1, cap=1, slo_ms=3_000)) as pool, client_of(pool) as client:
        stream = await client.images.generate(prompt="a", stream=True, extra_body={"num_inference_steps": 100})
        reading = asyncio.ensure_future(read(asyncio.sleep(0, stream)))
        await load_until(pool.workers[0].address, lambda load: load.running == 1)
        assert pool.workers[0].process is not None
        pool.workers[0].process.kill()
        with pytest.raises(openai.APIError) as failed:
            await reading
        assert failed.value.type == "server_error"
        gateway = pool.gateway
        assert gateway is not None

        async def errors() -> float:
            return sum([await metric(gateway, status_metric(ROUTE, status)) for status in (503, 504)])

        await until("the error is counted", errors, lambda seen: seen == 1)


PLAIN: dict[str, tuple[dict[str, Any], int, str]] = {
    "a form is no JSON": ({"data": {"prompt": "a"}}, 415, "unsupported_media_type"),
    "no content type": ({"content": b'{"prompt": "a"}'}, 415, "unsupported_media_type"),
    "too long": ({"json": {"prompt": "a" * 300_000}}, 413, "body_too_large"),
    "not JSON": ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "invalid_json"),
    "an id that is none": ({"json": {"prompt": "a"}, "headers": {"idempotency-key": "a" * 129}}, 400, "invalid_value"),
}


@pytest.mark.parametrize(("sent", "status", "code"), PLAIN.values(), ids=PLAIN)
async def test_what_cannot_be_read_is_refused(pool: LocalPool, sent: dict[str, Any], status: int, code: str) -> None:
    """With an id that names the answer, in OpenAI's shape."""
    async with http_of(pool) as http:
        answer = await http.post(ROUTE, **sent)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.headers["x-request-id"]


async def test_a_body_of_unknown_length_is_bounded_too(pool: LocalPool) -> None:
    """The rest of it is read and dropped, as clients send all before they listen; then the connection closes."""

    async def long() -> Any:
        for _ in range(64):
            yield b" " * 65_536

    async with http_of(pool) as http:
        answer = await http.post(ROUTE, content=long(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", ROUTE, 405), ("POST", "/v1/chat/completions", 404)])
async def test_what_is_not_here_says_so(pool: LocalPool, method: str, path: str, status: int) -> None:
    async with http_of(pool) as http:
        answer = await http.request(method, path)
    assert answer.status_code == status
    assert json.loads(answer.content)["error"]["type"] == "invalid_request_error"
