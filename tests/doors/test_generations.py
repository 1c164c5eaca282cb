"""The official OpenAI client draws images: one, several, in a stream, again under the same key."""

import asyncio

import openai
import pytest

from http_clients import http_of, opened
from t2i_testing_kit.serving import metric
from t2ictl.local_pool import LocalPool

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.process]


async def test_one_image_comes_with_what_was_decided(client: openai.AsyncOpenAI) -> None:
    """The answer has OpenAI's fields, and one object of ours that tells level, seed and times."""
    answer = await client.images.generate(prompt="a red circle", extra_body={"seed": 7})
    assert answer.data is not None
    image = opened(answer.data[0].b64_json)
    assert (image.format, image.size) == ("PNG", (48, 48))
    told = answer.to_dict()
    assert (told["size"], told["output_format"], told["background"]) == ("48x48", "png", "opaque")
    assert told["usage"]["images"] == 1
    story = told["t2i"]["images"][0]  # type: ignore[index]
    assert story["seed"] == 7
    assert story["served_level"] == {"phrase": "20 steps", "skipped_steps": 0, "num_inference_steps": 20}
    assert story["reproduction"] == {"seed": 7, "exact": True}
    assert story["timings_ms"]["total"] > 0
    assert "no similar prompt is cached" in story["message"]


async def test_the_synchronous_client_reads_the_same(pool: LocalPool) -> None:
    """It is a client of its own in the package."""

    def draw() -> openai.types.ImagesResponse:
        with openai.OpenAI(base_url=f"http://{pool.http_address}/v1", api_key="none", max_retries=0) as client:
            return client.images.generate(prompt="a red circle", output_format="webp", size="72x48")  # type: ignore[call-overload, no-any-return]

    answer = await asyncio.to_thread(draw)
    image = opened(answer.data[0].b64_json)  # type: ignore[index]
    assert (image.format, image.size) == ("WEBP", (72, 48))


async def test_several_images_are_one_request_with_seeds_in_a_row(client: openai.AsyncOpenAI) -> None:
    """All are admitted together, under one id."""
    answer = await client.images.generate(prompt="a red circle", n=4, extra_body={"seed": 40})
    assert answer.data is not None
    assert len(answer.data) == 4
    seeds = [image["seed"] for image in answer.to_dict()["t2i"]["images"]]  # type: ignore[index]
    assert seeds == [40, 41, 42, 43]


async def test_a_repeat_of_a_key_is_answered_from_the_first(client: openai.AsyncOpenAI, pool: LocalPool) -> None:
    """The client's own retries must not draw twice. The key is the id that every answer names."""
    assert pool.gateway is not None
    key = {"Idempotency-Key": "order-17"}
    before = await metric(pool.gateway, "t2i_gateway_replays_total")
    first = await client.images.with_raw_response.generate(prompt="a blue square", extra_headers=key)
    again = await client.images.generate(prompt="a blue square", extra_headers=key)
    assert first.headers["x-request-id"] == "order-17"
    assert again.data == first.parse().data
    assert await metric(pool.gateway, "t2i_gateway_replays_total") == before + 1
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        await client.images.generate(prompt="a green square", extra_headers=key)
    assert refused.value.param == "Idempotency-Key"


async def test_the_models_are_the_pool_and_its_source(client: openai.AsyncOpenAI) -> None:
    """Either name serves."""
    names = [model.id async for model in await client.models.list()]
    assert names == ["test", "scenes"]
    assert (await client.models.retrieve("scenes")).owned_by == "t2i-serving"
    for name in names:
        await client.images.generate(prompt="a red circle", model=name)


async def test_probes_need_no_proof(pool: LocalPool) -> None:
    """A load balancer asks them."""
    async with http_of(pool) as http:
        assert (await http.get("/healthz")).json() == {"status": "ok"}
        assert (await http.get("/readyz")).json() == {"status": "ready"}
