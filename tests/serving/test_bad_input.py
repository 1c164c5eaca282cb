"""Bad input over the wire: the right code, the field's name, and a server that goes on."""

import math

import grpc
import pytest

from t2i_protos.v1 import gateway_pb2
from t2i_testing_kit.serving import Client, violated_fields

pytestmark = [pytest.mark.process, pytest.mark.asyncio(loop_scope="module")]
Request = gateway_pb2.GenerateRequest

BAD = {
    "an empty prompt": (Request(prompt=""), "prompt"),
    "a prompt of blanks": (Request(prompt=" \n\t"), "prompt"),
    "a prompt of 200,000 letters": (Request(prompt="a" * 200_000), "prompt"),
    "a NUL in the prompt": (Request(prompt="a\0b"), "prompt"),
    "a NUL in the negative prompt": (Request(prompt="a", negative_prompt="\0"), "negative_prompt"),
    "another width": (Request(prompt="a", width=64), "width"),
    "a huge height": (Request(prompt="a", height=1_000_000), "height"),
    "a width that is not a multiple of 8": (Request(prompt="a", width=47), "width"),
    "no steps": (Request(prompt="a", num_inference_steps=0), "num_inference_steps"),
    "a billion steps": (Request(prompt="a", num_inference_steps=10**9), "num_inference_steps"),
    "a thousand images": (Request(prompt="a", num_images=1000), "num_images"),
    "guidance that is not a number": (Request(prompt="a", guidance_scale=math.nan), "guidance_scale"),
    "infinite guidance": (Request(prompt="a", guidance_scale=math.inf), "guidance_scale"),
    "negative guidance": (Request(prompt="a", guidance_scale=-1), "guidance_scale"),
    "quality above 100": (Request(prompt="a", min_quality_percent=101), "min_quality_percent"),
    "an unknown format": (Request(prompt="a", output_format=9), "output_format"),
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
    error = await client.refusal(Request(prompt="", width=1, min_quality_percent=101))
    assert violated_fields(error) == ["prompt", "width", "min_quality_percent"]


async def test_bytes_that_are_no_utf8_are_invalid_argument(client: Client) -> None:
    """A lone surrogate, as some client may put it on the wire, is the client's mistake and not an internal error."""
    prompt = b"\x0a\x03\xed\xa0\x80"  # field 1, three bytes: U+D800 on its own
    call = client.channel.unary_stream("/t2iserving.v1.TextToImage/Generate")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call(prompt, timeout=10):
            pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(caught.value) == ["request"]


async def test_message_over_the_limit_is_refused_before_it_is_read(client: Client) -> None:
    """A megabyte of prompt ends in RESOURCE_EXHAUSTED by the transport; the server goes on."""
    error = await client.refusal(Request(prompt="a" * 1_000_000))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await client.done(Request(prompt="a red circle"))).seed


async def test_expired_deadline_is_never_started(client: Client) -> None:
    """A deadline that has passed, or cannot be met, is DEADLINE_EXCEEDED without a step."""
    error = await client.refusal(Request(prompt="a red circle"), limit_s=0.001)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_explain_checks_the_same_fields(client: Client) -> None:
    """What cannot be drawn cannot be explained either."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.Explain(gateway_pb2.ExplainRequest(request=Request(prompt="")), timeout=10)
    assert violated_fields(caught.value) == ["prompt"]
