"""Streams as the official client reads them, drawn by the embedded model: partial images first, then the image."""

from typing import Any

import openai
import pytest

from http_clients import opened
from t2i_policy.profile_document import render_profile
from t2i_testing_kit.serving import make_profile
from t2ictl.local_pool import LocalOptions

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
PROMPT = "a big red circle left of a small blue square on a plain green background"


@pytest.fixture(scope="module")
def options(write_pool: Any) -> LocalOptions:
    made: LocalOptions = write_pool(engine="diffusion", slo_ms=60_000)
    assert made.profile is not None
    made.profile.write_text(render_profile(make_profile((0.05,))))
    return made


async def events_of(client: openai.AsyncOpenAI, **fields: Any) -> list[Any]:
    """All events of a stream."""
    stream = await client.images.generate(stream=True, **fields)
    return [event async for event in stream]


async def test_partial_images_come_before_the_image(client: openai.AsyncOpenAI) -> None:
    """They are the engine's own previews, in order and never more than were asked for. The last event has the image,
    which is the one that a request without a stream gets.
    """
    events = await events_of(client, prompt=PROMPT, partial_images=3, extra_body={"seed": 5})
    *partial, completed = events
    assert [event.type for event in partial] == ["image_generation.partial_image"] * 3
    assert [event.partial_image_index for event in partial] == [0, 1, 2]
    assert [event.t2i["step"] for event in partial] == [5, 10, 15]
    for event in partial:
        assert opened(event.b64_json).format == event.output_format.upper() == "WEBP"
        assert (event.size, event.background) == ("48x48", "opaque")
    assert completed.type == "image_generation.completed"
    assert opened(completed.b64_json).size == (48, 48)
    assert completed.usage.total_tokens == 0
    assert completed.t2i["images"][0]["seed"] == 5
    whole = await client.images.generate(prompt=PROMPT, extra_body={"seed": 5, "exact": True})
    assert whole.data is not None
    assert whole.data[0].b64_json == completed.b64_json


async def test_a_stream_without_partial_images_is_one_event(client: openai.AsyncOpenAI) -> None:
    """OpenAI says so of partial_images 0."""
    events = await events_of(client, prompt=PROMPT, partial_images=0, output_format="jpeg")
    assert [event.type for event in events] == ["image_generation.completed"]
    assert opened(events[0].b64_json).format == "JPEG"


async def test_several_images_of_a_stream_are_told_apart(client: openai.AsyncOpenAI) -> None:
    """Each has its own partial images and its own end; their seeds are in a row, so each can be drawn again alone."""
    fields: dict[str, Any] = {"prompt": PROMPT, "extra_body": {"seed": 70, "exact": True}}
    events = await events_of(client, n=2, partial_images=1, **fields)
    for index in (0, 1):
        own = [event.type.rpartition(".")[2] for event in events if event.image_index == index]
        assert own == ["partial_image", "completed"]
    second = next(event for event in events if event.type.endswith("completed") and event.image_index == 1)
    alone = await client.images.generate(prompt=PROMPT, extra_body={"seed": 71, "exact": True})
    assert alone.data is not None
    assert alone.data[0].b64_json == second.b64_json


async def test_a_refusal_before_the_stream_has_its_own_status(client: openai.AsyncOpenAI) -> None:
    """Headers wait for the first event."""
    with pytest.raises(openai.BadRequestError) as refused:
        await events_of(client, prompt=PROMPT, size="64x64")
    assert refused.value.param == "size"
