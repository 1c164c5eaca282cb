"""What a body asks of the pool, and what it is told when it asks for something that there is not."""

import json
from typing import Any

import pytest

from t2i_api.pool import PoolSpec
from t2i_gateway.doors.errors import HttpRefused, error_body, status_of
from t2i_gateway.doors.fields import parse_body, to_message
from t2i_gateway.errors import GatewayError
from t2i_gateway.request import ImageRequest, parse_request
from t2i_protos.v1 import level_pb2

SPEC = PoolSpec.model_validate(
    {
        "model": {
            "source": "builtin://scenes",
            "width": 512,
            "height": 512,
            "sizes": [{"width": 768, "height": 512}],
            "numInferenceSteps": 20,
        },
        "workerGroups": [{"name": "a", "workers": 1}],
        "slo": {"minQualityPercent": 80},
        "gateway": {"qualities": [{"name": "low", "minQualityPercent": 85}, {"name": "medium", "exact": True}]},
    }
)

TURBO = {"name": "turbo", "source": "hf://a/turbo", "numInferenceSteps": 4}


def request_of(**fields: Any) -> ImageRequest:
    """What the director gets."""
    return parse_request(to_message(parse_body(json.dumps({"prompt": "a", **fields}).encode()), SPEC, ""), SPEC)


def refusal_of(data: bytes) -> GatewayError:
    """What is raised for a body."""
    with pytest.raises(GatewayError) as refused:
        parse_request(to_message(parse_body(data), SPEC, ""), SPEC)
    return refused.value


def test_what_is_left_out_is_as_the_pool_says() -> None:
    """Null is left out too, as OpenAI's clients send it."""
    names = ("model", "n", "size", "quality", "output_format", "seed", "stream", "partial_images", "exact")
    for request in (request_of(), request_of(**dict.fromkeys(names))):
        assert str(request.size) == "512x512"
        assert request.num_images == 1
        assert request.output_format == level_pb2.OUTPUT_FORMAT_PNG
        assert request.limits.max_loss == pytest.approx(0.2)
        assert not request.limits.exact
        assert not request.named


LOSSES: dict[str, tuple[dict[str, Any], float, bool]] = {
    "auto is the pool's floor": ({"quality": "auto"}, 0.2, False),
    "a listed word is as the pool lists it": ({"quality": "low"}, 0.15, False),
    "a listed word may be exact": ({"quality": "medium"}, 0.2, True),
    "standard is the pool's floor": ({"quality": "standard"}, 0.2, False),
    "hd is exact": ({"quality": "hd"}, 0.2, True),
    "high is exact": ({"quality": "high"}, 0.2, True),
    "a floor of the request's own": ({"min_quality_percent": 97}, 0.03, False),
    "the higher of two floors counts": ({"quality": "low", "min_quality_percent": 97}, 0.03, False),
    "no floor is under the pool's": ({"min_quality_percent": 1}, 0.2, False),
    "exact": ({"exact": True, "quality": "low"}, 0.15, True),
    "a schedule of its own is no matter of load": ({"quality": "high", "num_inference_steps": 5}, 0.2, False),
}


@pytest.mark.parametrize(("fields", "max_loss", "exact"), LOSSES.values(), ids=LOSSES)
def test_a_word_for_quality_is_a_floor(fields: dict[str, Any], max_loss: float, exact: bool) -> None:
    """It bounds what may be lost under load."""
    limits = request_of(**fields).limits
    assert (limits.max_loss, limits.exact) == (pytest.approx(max_loss), exact)


def test_everything_else_reaches_the_request() -> None:
    """OpenAI's fields and ours."""
    request = request_of(
        n=3,
        size="768x512",
        output_format="webp",
        seed=2**64 - 1,
        negative_prompt="b",
        num_inference_steps=8,
        guidance_scale=3,
        style="vivid",
        user="u",
        moderation="low",
        background="opaque",
        output_compression=100,
        response_format="b64_json",
        stream=True,
        partial_images=3,
        prompt_in_file=True,
    )
    assert (request.num_images, str(request.size), request.seed) == (3, "768x512", 2**64 - 1)
    assert (request.negative_prompt, request.limits.fixed_steps, request.guidance_scale) == ("b", 8, 3.0)
    assert request.output_format == level_pb2.OUTPUT_FORMAT_WEBP
    assert request.preview_every_steps == 2
    assert request.prompt_in_file


def test_a_word_for_quality_gives_way_to_a_fixed_schedule() -> None:
    """A word is about what load may do, so it is no contradiction; a floor of one's own is one (`WRONG`)."""
    request = request_of(quality="high", num_inference_steps=5)
    assert request.limits.fixed_steps == 5
    assert request_of(min_quality_percent=99, num_inference_steps=20).limits.fixed_steps == 20


@pytest.mark.parametrize(("asked", "every"), [(0, 0), (1, 10), (2, 7), (3, 5)])
def test_previews_are_spread_over_the_run(asked: int, every: int) -> None:
    """So that a full schedule of 20 steps shows as many as were asked for; none without a stream."""
    assert request_of(stream=True, partial_images=asked).preview_every_steps == every
    assert request_of(partial_images=asked).preview_every_steps == 0


@pytest.mark.parametrize(("model", "every"), [("turbo", 1), ("reference", 7), (None, 7)])
def test_previews_are_spread_over_the_run_of_the_model_that_is_demanded(model: str | None, every: int) -> None:
    groups = [{"name": "a", "workers": 1}, {"name": "b", "workers": 1, "model": TURBO}]
    spec = PoolSpec.model_validate(
        {"model": {"source": "builtin://scenes", "numInferenceSteps": 20}, "workerGroups": groups}
    )
    body = parse_body(json.dumps({"prompt": "a", "stream": True, "partial_images": 2, "model": model}).encode())
    assert to_message(body, spec, "").preview_every_steps == every


WRONG: dict[str, tuple[str | None, str, str]] = {
    '{"prompt": "a", "n": 0}': ("n", "invalid_value", "greater than or equal to 1"),
    '{"prompt": "a", "n": 11}': ("n", "invalid_value", "10"),
    '{"prompt": "a", "n": "2"}': ("n", "invalid_type", "integer"),
    '{"prompt": "a", "n": 1.5}': ("n", "invalid_type", "integer"),
    '{"prompt": 5}': ("prompt", "invalid_type", "string"),
    '{"prompt": "  "}': ("prompt", "invalid_value", "must not be empty"),
    '{"prompt": "a\\u0000"}': ("prompt", "invalid_value", "NUL"),
    "{}": ("prompt", "missing_required_parameter", "prompt"),
    '{"prompt": "a", "size": "512"}': ("size", "invalid_value", "768x512"),
    '{"prompt": "a", "size": "64x64"}': ("size", "invalid_value", "768x512"),
    '{"prompt": "a", "size": "99999999999x1"}': ("size", "invalid_value", "WIDTHxHEIGHT"),
    '{"prompt": "a", "quality": "best"}': ("quality", "invalid_value", "medium"),
    '{"prompt": "a", "response_format": "url"}': ("response_format", "invalid_value", "b64_json"),
    '{"prompt": "a", "output_format": "gif"}': ("output_format", "invalid_value", "webp"),
    '{"prompt": "a", "output_compression": 50}': ("output_compression", "invalid_value", "100"),
    '{"prompt": "a", "background": "transparent"}': ("background", "invalid_value", "opaque"),
    '{"prompt": "a", "partial_images": 4}': ("partial_images", "invalid_value", "3"),
    '{"prompt": "a", "seed": -1}': ("seed", "invalid_value", "0"),
    '{"prompt": "a", "seed": 18446744073709551616}': ("seed", "invalid_value", "18446744073709551616"),
    '{"prompt": "a", "num_inference_steps": 0}': ("num_inference_steps", "invalid_value", "from 1 to 100, got 0"),
    '{"prompt": "a", "num_inference_steps": -5}': ("num_inference_steps", "invalid_value", "from 1 to 100, got -5"),
    '{"prompt": "a", "num_inference_steps": 99999999999}': ("num_inference_steps", "invalid_value", "got 99999999999"),
    '{"prompt": "a", "guidance_scale": 99}': ("guidance_scale", "invalid_value", "30"),
    '{"prompt": "a", "guidance_scale": NaN}': ("guidance_scale", "invalid_value", "30"),
    '{"prompt": "a", "guidance_scale": 1e999}': ("guidance_scale", "invalid_value", "30"),
    '{"prompt": "a", "min_quality_percent": 101}': ("min_quality_percent", "invalid_value", "100"),
    '{"prompt": "a", "colour": "red"}': ("colour", "unknown_parameter", "colour"),
    '{"prompt": "a", "stream": "yes"}': ("stream", "invalid_type", "boolean"),
    '{"prompt": "a\\ud800"}': ("prompt", "invalid_value", "surrogate"),
    '{"prompt": "a", "\\udc00": 1}': ("\\udc00", "invalid_value", "surrogate"),
    '{"prompt": "a", "more": {"deep": ["\\udc00"]}}': ("more", "invalid_value", "surrogate"),
    f'{{"prompt": "a", "seed": {"1" * 5000}}}': ("seed", "invalid_value", "more than 1000 digits"),
    f'{{"prompt": "a", "guidance_scale": 1{"0" * 5000}.0}}': ("guidance_scale", "invalid_value", "1000 digits"),
    f'{{"prompt": "\\ud800", "seed": {"1" * 5000}': (None, "invalid_json", "JSON"),
    '{"prompt": "a", "exact": true, "num_inference_steps": 5}': (
        *("num_inference_steps", "invalid_value"),
        "cannot be combined with exact, which runs the pool's 20 steps",
    ),
    '{"prompt": "a", "min_quality_percent": 99, "num_inference_steps": 5}': (
        *("min_quality_percent", "invalid_value"),
        "fixes the schedule: leave one of them out",
    ),
    '{"prompt": "a", "n": 1, "prompt": "b"}': ("prompt", "duplicate_parameter", "send it once"),
    '{"prompt": "a", "n": 1, "n": 1}': ("n", "duplicate_parameter", "send it once"),
    "[]": (None, "invalid_type", "object"),
    "no json": (None, "invalid_json", "JSON"),
    "": (None, "invalid_json", "JSON"),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named(text: str) -> None:
    """In OpenAI's shape, with a sentence that says what to send instead."""
    error = refusal_of(text.encode())
    param, code, says = WRONG[text]
    told = error_body(error)["error"]
    assert status_of(error) == 400
    assert (told["param"], told["code"], told["type"]) == (param, code, "invalid_request_error")
    assert says in told["message"]


def test_a_refusal_carries_no_prompt() -> None:
    """What is logged with an error must not hold what a client wrote."""
    error = refusal_of(b'{"prompt": "a secret", "n": "secret", "seed": "secret"}')
    assert isinstance(error, HttpRefused)
    assert error.__cause__ is None
    assert "secret" not in str(error)
