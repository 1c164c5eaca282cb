"""Bad input over the wire: the right code, the field's name, and a server that goes on."""

import math
from typing import Any

import grpc
import pytest

from t2i_protos.v1 import drawing_pb2, gateway_pb2
from t2i_testing_kit.serving import WITHIN_S, Client, violated_fields

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
Request = gateway_pb2.GenerateRequest
Value = drawing_pb2.ArgumentValue
Adapter = drawing_pb2.AdapterUse


def drawn(**drawing: Any) -> Request:
    return Request(prompt="a", drawing=drawing_pb2.Drawing(**drawing))


def from_images(**images: Any) -> Request:
    return drawn(images=drawing_pb2.InputImages(**images))


PNG = b"\x89PNG\r\n\x1a\n"
BAD = {
    "an empty prompt": (Request(prompt=""), "prompt"),
    "a prompt of blanks": (Request(prompt=" \n\t"), "prompt"),
    "a prompt of 200,000 letters": (Request(prompt="a" * 200_000), "prompt"),
    "a NUL in the prompt": (Request(prompt="a\0b"), "prompt"),
    "a NUL in the negative prompt": (Request(prompt="a", negative_prompt="\0"), "negative_prompt"),
    "another size": (Request(prompt="a", width=56, height=48), "width"),
    "a width without a height": (Request(prompt="a", width=48), "height"),
    "a height without a width": (Request(prompt="a", height=48), "width"),
    "a huge height": (Request(prompt="a", width=48, height=1_000_000), "width"),
    "a width that is not a multiple of 8": (Request(prompt="a", width=47, height=48), "width"),
    "no steps": (Request(prompt="a", num_inference_steps=0), "num_inference_steps"),
    "a billion steps": (Request(prompt="a", num_inference_steps=10**9), "num_inference_steps"),
    "a thousand images": (Request(prompt="a", num_images=1000), "num_images"),
    "guidance that is not a number": (Request(prompt="a", guidance_scale=math.nan), "guidance_scale"),
    "infinite guidance": (Request(prompt="a", guidance_scale=math.inf), "guidance_scale"),
    "negative guidance": (Request(prompt="a", guidance_scale=-1), "guidance_scale"),
    "quality above 100": (Request(prompt="a", min_quality_percent=101), "min_quality_percent"),
    "an unknown format": (Request(prompt="a", output_format=9), "output_format"),
    "an unknown argument": (drawn(arguments={"steps": Value(number=1)}), "drawing.arguments['steps']"),
    "half a layer to skip": (drawn(arguments={"clip_skip": Value(number=0.5)}), "drawing.arguments['clip_skip']"),
    "a layer in words": (drawn(arguments={"clip_skip": Value(text="two")}), "drawing.arguments['clip_skip']"),
    "an argument without a value": (drawn(arguments={"clip_skip": Value()}), "drawing.arguments['clip_skip']"),
    "an argument that is not a number": (drawn(arguments={"eta": Value(number=math.nan)}), "drawing.arguments['eta']"),
    "a sampler of 200 letters": (drawn(sampler="x" * 200), "drawing.sampler"),
    "one byte of an image": (from_images(init_image=b"\x89"), "drawing.images.init_image"),
    "a GIF": (from_images(init_image=b"GIF89a" + bytes(50)), "drawing.images.init_image"),
    "an SVG": (from_images(init_image=b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "drawing.images.init_image"),
    "nine megabytes of an image": (from_images(init_image=PNG + bytes(9 << 20)), "drawing.images.init_image"),
    "a mask that is text": (from_images(init_image=PNG, mask=b"white"), "drawing.images.mask"),
    "a mask alone": (from_images(mask=PNG), "drawing.images.mask"),
    "a strength alone": (from_images(strength=0.5), "drawing.images.strength"),
    "no strength at all": (from_images(init_image=PNG, strength=0.0), "drawing.images.strength"),
    "more than all strength": (from_images(init_image=PNG, strength=1.01), "drawing.images.strength"),
    "strength that is not a number": (from_images(init_image=PNG, strength=math.nan), "drawing.images.strength"),
    "five references": (from_images(reference_images=[PNG] * 5), "drawing.images.reference_images"),
    "a text among references": (from_images(reference_images=[PNG, b"a"]), "drawing.images.reference_images[1]"),
    "too much together": (
        from_images(init_image=PNG + bytes(7 << 20), reference_images=[PNG + bytes((9 << 20) // 2)] * 2),
        "drawing.images",
    ),
    "three files of nearly eight megabytes": (
        from_images(reference_images=[PNG + bytes((8 << 20) - 100)] * 3),
        "drawing.images",
    ),
    "references beside a mask": (
        from_images(init_image=PNG, mask=PNG, reference_images=[PNG]),
        "drawing.images.reference_images",
    ),
    "an image for an IP-Adapter that the pool lacks": (
        from_images(ip_adapter_images=[drawing_pb2.ControlImage(component="face", image=PNG)]),
        "drawing.images.ip_adapter_images[0].component",
    ),
    "an image for a part that the pool lacks": (
        from_images(control_images=[drawing_pb2.ControlImage(component="canny", image=PNG)]),
        "drawing.images.control_images[0].component",
    ),
    "an adapter that the pool lacks": (drawn(adapters=[Adapter(name="style")]), "drawing.adapters"),
    "a request id of 200 letters": (Request(prompt="a", request_id="x" * 200), "request_id"),
    "a request id with a line break": (Request(prompt="a", request_id="x\ny"), "request_id"),
}
GOOD = {
    "right to left": "שלום עולם, عيون كبيرة",
    "emoji with joiners": "👩‍👩‍👧 a 🟥 circle",
    "combining marks": "é̂ circle",
    "4,096 letters": "a" * 4096,
    "one word no tokenizer knows": "xyzzy",
}


@pytest.mark.parametrize("case", BAD)
async def test_bad_field_is_named_and_server_goes_on(client: Client, case: str) -> None:
    """INVALID_ARGUMENT with a violation of exactly that field; the next request is served."""
    request, field = BAD[case]
    error = await client.refusal(request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(error) == [field]
    assert (await client.done(Request(prompt="a red circle"))).served.num_inference_steps


@pytest.mark.parametrize("case", GOOD)
async def test_unusual_text_is_drawn(client: Client, case: str) -> None:
    """Text that is only unusual is not bad input."""
    assert (await client.done(Request(prompt=GOOD[case]))).served.num_inference_steps


async def test_all_violations_are_reported_together(client: Client) -> None:
    """One round trip tells everything that is wrong."""
    error = await client.refusal(Request(prompt="", width=1, height=1, min_quality_percent=101))
    assert violated_fields(error) == ["prompt", "width", "min_quality_percent"]


async def test_bytes_that_are_no_utf8_are_invalid_argument(client: Client) -> None:
    """A lone surrogate, as some client may put it on the wire, is the client's mistake and not an internal error."""
    prompt = b"\x0a\x03\xed\xa0\x80"  # field 1, three bytes: U+D800 on its own
    call = client.channel.unary_stream("/t2iserving.v1.TextToImage/Generate")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call(prompt, timeout=WITHIN_S):
            pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(caught.value) == ["request"]


async def test_message_over_the_limit_is_refused_before_it_is_read(client: Client) -> None:
    """Thirty megabytes of prompt end in RESOURCE_EXHAUSTED by the transport; the server goes on."""
    error = await client.refusal(Request(prompt="a" * 30_000_000))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await client.done(Request(prompt="a red circle"))).seed


async def test_expired_deadline_is_never_started(client: Client) -> None:
    """A deadline that has passed, or cannot be met, is DEADLINE_EXCEEDED without a step."""
    error = await client.refusal(Request(prompt="a red circle"), limit_s=0.001)  # too short for anything
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_explain_checks_the_same_fields(client: Client) -> None:
    """What cannot be drawn cannot be explained either."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.Explain(gateway_pb2.ExplainRequest(request=Request(prompt="")), timeout=WITHIN_S)
    assert violated_fields(caught.value) == ["prompt"]
