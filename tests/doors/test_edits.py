"""The official client edits images: files of a form become the images that a request starts from."""

import io
import re
from typing import Any

import openai
import pytest
from PIL import Image

from http_clients import http_of, opened
from t2i_policy.profile_document import render_profile
from t2i_testing_kit.serving import make_profile
from t2ictl.local_pool import LocalOptions, LocalPool

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
PROMPT = "a large green circle above a small blue square on a plain red background"
WAYS: dict[str, Any] = {"seed": 3, "strength": 0.5}


def png(colour: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (48, 48), colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def options(write_pool: Any) -> LocalOptions:
    made: LocalOptions = write_pool(engine="diffusion", slo_ms=60_000)
    assert made.profile is not None
    made.profile.write_text(render_profile(make_profile((0.05,))))
    return made


async def test_an_image_is_drawn_from_another(client: openai.AsyncOpenAI) -> None:
    """Another image to start from, or another strength, makes another one; the same makes the same."""
    first, again, other, weaker = [
        (await client.images.edit(image=png(colour), prompt=PROMPT, extra_body={**WAYS, "strength": strength})).data
        for colour, strength in (("red", 0.5), ("red", 0.5), ("blue", 0.5), ("red", 0.3))
    ]
    assert first == again
    assert len({str(one) for one in (first, other, weaker)}) == 3
    assert opened(first[0].b64_json).size == (48, 48)  # type: ignore[index]


async def test_an_edit_streams(client: openai.AsyncOpenAI) -> None:
    """Under the names that OpenAI gives to the events of edits; fields of a form are texts, whatever their kind."""
    stream = await client.images.edit(
        image=("red.png", png("red")), prompt=PROMPT, n=2, stream=True, partial_images=1, extra_body=WAYS
    )
    names = sorted([event.type async for event in stream])
    assert names[:2] == ["image_edit.completed"] * 2
    assert set(names[2:]) <= {"image_edit.partial_image"}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no image file": ({"image": b"text"}, "image"),
    "an empty file": ({"image": b""}, "image"),
    "a mask that the model cannot use": ({"image": png("red"), "mask": png("white")}, "mask"),
    "several images that the model cannot use": ({"image": [png("red"), png("blue")]}, "image"),
    "a mask for several images": ({"image": [png("red"), png("blue")], "mask": png("white")}, "mask"),
    "no strength": ({"image": png("red"), "extra_body": {"strength": 2}}, "strength"),
    "no number": ({"image": png("red"), "extra_body": {"n": "many"}}, "n"),
    "more images than any model takes": ({"image": [png("red")] * 6}, "image"),
    "no field": ({"image": png("red"), "extra_body": {"colour": "red"}}, "colour"),
}


@pytest.mark.parametrize(("fields", "param"), WRONG.values(), ids=WRONG)
async def test_what_is_wrong_is_named(client: openai.AsyncOpenAI, fields: dict[str, Any], param: str) -> None:
    """By the name that the client gave it."""
    with pytest.raises(openai.BadRequestError) as refused:
        await client.images.edit(prompt=PROMPT, **fields)
    assert refused.value.param == param
    assert not re.search("init_image|reference_images|drawing", refused.value.message)


FORMS: dict[str, tuple[dict[str, Any], int]] = {
    "no file": ({"data": {"prompt": PROMPT}, "files": {"other": b"a"}}, 400),
    "an image that is a text": ({"files": {"image": (None, "a"), "prompt": (None, PROMPT)}}, 400),
    "a field that is there twice": ({"files": [("prompt", (None, "a")), ("prompt", (None, "b"))]}, 400),
    "JSON": ({"json": {"prompt": PROMPT}}, 415),
    "no boundary": ({"content": b"a", "headers": {"content-type": "multipart/form-data"}}, 400),
    "a broken form": ({"content": b"a", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400),
    "too many fields": ({"files": [(f"f{n}", (None, "a")) for n in range(100)]}, 400),
    "too large": ({"files": {"image": bytes(17 << 20)}}, 413),
}


@pytest.mark.parametrize(("sent", "status"), FORMS.values(), ids=FORMS)
async def test_a_form_that_cannot_be_read_is_refused(pool: LocalPool, sent: dict[str, Any], status: int) -> None:
    """Never with an error of the gateway's own."""
    async with http_of(pool) as http:
        answer = await http.post("/v1/images/edits", **sent)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["message"]
