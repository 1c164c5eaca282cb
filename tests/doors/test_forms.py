"""What a form of POST /v1/images/edits may not say: refused by the field's own name, before anything is drawn."""

from typing import Any

import httpx
import pytest
from starlette.requests import Request

from t2i_gateway.doors.errors import HttpRefused
from t2i_gateway.doors.forms import read_edit
from t2i_runtime.input_images import MAX_REFERENCE_IMAGES

FILE = ("a.png", b"bytes")  # nobody looks into a file here
IMAGE, MASK, SHOWN = ("image", FILE), ("mask", FILE), ("ip_adapter_image", FILE)


def text(name: str, value: str) -> tuple[str, tuple[None, str]]:
    return name, (None, value)


PROMPT, ADAPTER = text("prompt", "a cat"), text("ip_adapter", "face")
WRONG: dict[str, tuple[list[Any], str, str]] = {
    "no image": ([PROMPT, MASK], "image", "missing_required_parameter"),
    "a text twice": ([PROMPT, IMAGE, text("seed", "1"), text("seed", "1")], "seed", "duplicate_parameter"),
    "two masks": ([PROMPT, IMAGE, MASK, MASK], "mask", "invalid_value"),
    "a mask for several images": ([PROMPT, IMAGE, IMAGE, MASK], "mask", "invalid_value"),
    "too many images": ([PROMPT, *[IMAGE] * (MAX_REFERENCE_IMAGES + 1)], "image", "invalid_value"),
    "a file that nobody reads": ([PROMPT, IMAGE, ("depth", FILE)], "depth", "unknown_parameter"),
    "an adapter's image alone": ([PROMPT, IMAGE, SHOWN], "ip_adapter", "missing_required_parameter"),
    "an adapter alone": ([PROMPT, IMAGE, ADAPTER], "ip_adapter_image", "missing_required_parameter"),
    "two images for an adapter": ([PROMPT, IMAGE, ADAPTER, SHOWN, SHOWN], "ip_adapter_image", "duplicate_parameter"),
    "a scale of no adapter": ([PROMPT, IMAGE, text("ip_adapter_scale", "1")], "ip_adapter_image", "invalid_value"),
}


def received(fields: list[Any]) -> tuple[Request, bytes]:
    sent = httpx.Request("POST", "http://door/v1/images/edits", files=fields)
    headers = [(name.lower(), value) for name, value in sent.headers.raw]
    return Request({"type": "http", "headers": headers}), sent.read()


@pytest.mark.parametrize(("fields", "param", "code"), WRONG.values(), ids=WRONG)
async def test_a_wrong_form_is_refused_by_name(fields: list[Any], param: str, code: str) -> None:
    """Of two values the server could only guess which is meant, and what it drops in silence the client believes in."""
    with pytest.raises(HttpRefused) as refused:
        await read_edit(*received(fields))
    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)


async def test_files_reach_their_places() -> None:
    """One image is to start from, with its mask; several are looked at; an adapter is shown its own."""
    one = await read_edit(*received([PROMPT, IMAGE, MASK, ADAPTER, SHOWN]))
    assert one.files is not None
    assert (one.files.init_image, one.files.mask) == (FILE[1], FILE[1])
    assert [(shown.component, shown.image) for shown in one.files.ip_adapter_images] == [("face", FILE[1])]
    several = await read_edit(*received([PROMPT, ("image[]", FILE), ("image[]", FILE)]))
    assert several.files is not None
    assert (list(several.files.reference_images), several.files.init_image) == ([FILE[1]] * 2, b"")
