"""Samplers, adapters, arguments and images for components: what JSON and forms say of them becomes gRPC's `Drawing`."""

import base64
import json
import re
from typing import Any

import pytest

from t2i_api.parse import parse_pool
from t2i_gateway.doors.errors import error_body, status_of
from t2i_gateway.doors.fields import GenerationBody, parse_body, parse_fields, to_message
from t2i_gateway.doors.openapi import openapi_document
from t2i_gateway.errors import GatewayError, RequestInvalid
from t2i_gateway.request import parse_request
from t2i_protos.v1 import drawing_pb2
from t2i_runtime.errors import Violation

PNG = b"\x89PNG\r\n\x1a\n rest"
CODED = base64.b64encode(PNG).decode()
POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {name: p}
spec:
  model:
    source: "builtin://scenes"
    adapters:
    - {name: pixel, source: "file:///adapters/pixel", scalePercent: 80}
    - {name: detail, source: "file:///adapters/detail"}
    components:
    - {name: canny, source: "file:///canny"}
    - {name: face, kind: IPAdapter, source: "file:///face", weightName: face.safetensors}
  workerGroups: [{name: a, workers: 1}]
"""
SPEC = parse_pool(POOL).spec
Drawing, Adapter, Image = drawing_pb2.Drawing, drawing_pb2.AdapterUse, drawing_pb2.ControlImage


def arguments(**given: Any) -> Drawing:
    drawing = Drawing()
    for name, value in given.items():
        kind = "flag" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
        setattr(drawing.arguments[name], kind, value)
    return drawing


SAID: dict[str, tuple[dict[str, Any], Drawing]] = {
    "a sampler": ({"sampler": "dpm++-2m-karras"}, Drawing(sampler="dpm++-2m-karras")),
    "one adapter": ({"lora": {"name": "pixel"}}, Drawing(adapters=[Adapter(name="pixel")])),
    "several adapters": (
        {"lora": [{"name": "pixel", "scale": 1}, {"name": "detail", "scale": 0.5}]},
        Drawing(adapters=[Adapter(name="pixel", scale=1), Adapter(name="detail", scale=0.5)]),
    ),
    "arguments": (
        {"arguments": {"clip_skip": 2, "cfg_normalization": True, "prompt_2": "2"}},
        arguments(clip_skip=2, cfg_normalization=True, prompt_2="2"),
    ),
    "arguments of their own": (
        {"true_cfg_scale": 4, "max_sequence_length": 512},
        arguments(true_cfg_scale=4.0, max_sequence_length=512.0),
    ),
    "an image for a ControlNet": (
        {"control_images": [{"component": "canny", "image": CODED, "scale": 0.7}]},
        Drawing(images=drawing_pb2.InputImages(control_images=[Image(component="canny", image=PNG, scale=0.7)])),
    ),
    "a link that holds its data": (
        {"ip_adapter_images": [{"component": "face", "image": f"data:image/png;base64,{CODED}"}]},
        Drawing(images=drawing_pb2.InputImages(ip_adapter_images=[Image(component="face", image=PNG)])),
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_json_becomes_the_drawing_of_grpc(case: str) -> None:
    fields, wanted = SAID[case]
    message = to_message(parse_body(json.dumps({"prompt": "a", **fields}).encode()), SPEC, "")
    assert message.drawing == wanted
    assert parse_request(message, SPEC).drawing


def test_without_them_nothing_is_said() -> None:
    """Most requests say nothing of it, and are read without looking for it."""
    names = ("sampler", "lora", "arguments", "true_cfg_scale", "control_images", "ip_adapter_images")
    for body in ({}, dict.fromkeys(names), {"lora": [], "arguments": {}}):
        assert not to_message(GenerationBody(prompt="a", **body), SPEC, "").HasField("drawing")


FORMS: dict[str, tuple[dict[str, str], str]] = {
    "as OpenAI's clients write it": ({"lora[name]": "pixel", "lora[scale]": "1"}, '{"name": "pixel", "scale": 1}'),
    "as JSON": ({"lora": '[{"name": "pixel"}, {"name": "detail"}]'}, '[{"name": "pixel"}, {"name": "detail"}]'),
}


@pytest.mark.parametrize(("texts", "same"), FORMS.values(), ids=FORMS)
def test_a_form_says_the_same(texts: dict[str, str], same: str) -> None:
    form = to_message(parse_fields({"prompt": "a", **texts}), SPEC, "")
    assert form == to_message(parse_body(f'{{"prompt": "a", "lora": {same}}}'.encode()), SPEC, "")


def test_arguments_of_a_form_have_the_kind_that_they_take() -> None:
    """All are texts there; 2024 may be a prompt."""
    texts = {"clip_skip": "2", "prompt_2": "2024", "cfg_normalization": "true"}
    form = {f"arguments[{name}]": text for name, text in texts.items()}
    more = {"sampler": "7", "true_cfg_scale": "4", "max_sequence_length": "512"}
    wanted = arguments(clip_skip=2, prompt_2="2024", cfg_normalization=True, true_cfg_scale=4, max_sequence_length=512)
    wanted.sampler = "7"
    assert to_message(parse_fields({"prompt": "a", **form, **more}), SPEC, "").drawing == wanted


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "an adapter that is not there": ({"lora": {"name": "pixle"}}, "lora", "those of the pool: detail, pixel"),
    "an adapter by its path": ({"lora": {"name": "pixel", "path": "/x"}}, "lora[0].path", "Unknown parameter"),
    "an adapter twice": ({"lora": [{"name": "pixel"}] * 2}, "lora", "once"),
    "a scale beyond the bounds": ({"lora": {"name": "pixel", "scale": 3}}, "lora[0].scale", "2"),
    "an adapter as a text": ({"lora": "pixel"}, "lora", "array"),
    "an unknown argument": ({"arguments": {"eta_2": 1}}, "arguments.eta_2", "those that are taken"),
    "an argument beyond its bounds": ({"arguments": {"clip_skip": 99}}, "arguments.clip_skip", "from 1 to 12"),
    "an argument beyond its bounds, by itself": ({"true_cfg_scale": 31}, "true_cfg_scale", "30"),
    "an argument twice": ({"true_cfg_scale": 3, "arguments": {"true_cfg_scale": 3}}, "true_cfg_scale", "once"),
    "a ControlNet that is not there": (
        *({"control_images": [{"component": "face", "image": CODED}]}, "control_images[0].component"),
        "it has canny",
    ),
    "no base64": (
        *({"control_images": [{"component": "canny", "image": "a.png"}]}, "control_images[0].image"),
        "base64",
    ),
    "no image": (
        *({"ip_adapter_images": [{"component": "face", "image": "YWJj"}]}, "ip_adapter_images[0].image"),
        "PNG, JPEG or WEBP",
    ),
    "two images": ({"control_images": [{"component": "canny", "image": CODED}] * 2}, "control_images", "1"),
    "a sampler without end": ({"sampler": "a" * 65}, "sampler", "64"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_as_the_client_named_it(case: str) -> None:
    fields, param, says = WRONG[case]
    with pytest.raises(GatewayError) as refused:
        parse_request(to_message(parse_body(json.dumps({"prompt": "a", **fields}).encode()), SPEC, ""), SPEC)
    told = error_body(refused.value)["error"]
    assert (status_of(refused.value), told["param"]) == (400, param)
    assert says in told["message"]
    assert "drawing" not in told["message"]


@pytest.mark.parametrize(
    ("texts", "param"),
    [
        ({"lora": "pixel"}, "lora"),
        ({"lora[name]": "pixel", "lora": "{}"}, "lora"),
        ({"lora[name]": "pixel", "lora[scale]": "much"}, "lora[0].scale"),
        ({"arguments[clip_skip]": "two"}, "arguments.clip_skip"),
        ({"control_images": "[]"}, "control_images"),
    ],
)
def test_what_is_wrong_in_a_form_is_named(texts: dict[str, str], param: str) -> None:
    with pytest.raises(GatewayError) as refused:
        parse_request(to_message(parse_fields({"prompt": "a", **texts}), SPEC, ""), SPEC)
    assert error_body(refused.value)["error"]["param"] == param


def test_the_description_names_what_the_pool_has() -> None:
    """A client that is made from it offers the pool's own adapters; a pool without any has no such field."""
    described = openapi_document(parse_pool(POOL))["components"]["schemas"]
    assert described["LoraBody"]["properties"]["name"] == {"enum": ["detail", "pixel"]}
    assert described["ComponentImageBody"]["properties"]["component"] == {"enum": ["canny", "face"]}
    assert {"ip_adapter", "ip_adapter_image"} <= {*described["EditBody"]["properties"]}
    head, _, rest = POOL.partition("    adapters:")
    bare = openapi_document(parse_pool(head + rest[rest.index("  workerGroups") :]))["components"]["schemas"]
    assert not {"LoraBody", "ComponentImageBody"} & {*bare}
    for body in ("GenerationBody", "EditBody"):
        properties = {*bare[body]["properties"]}
        assert {"sampler", "arguments", "true_cfg_scale"} <= properties
        assert not {"lora", "control_images", "ip_adapter_images", "ip_adapter", "ip_adapter_image"} & properties


@pytest.mark.parametrize(
    ("argument", "told"), [("true_cfg_scale", "true_cfg_scale"), ("clip_skip", "arguments.clip_skip")]
)
def test_a_sentence_of_a_worker_names_arguments_as_the_client_does(argument: str, told: str) -> None:
    """Workers speak of fields of the wire contract; who came by HTTP never saw one."""
    sentence = f"this model reads a negative prompt only with drawing.arguments['{argument}'] above 1"
    refused = RequestInvalid([Violation("negative_prompt", sentence)])
    message = error_body(refused)["error"]["message"]
    assert message == f"negative_prompt: this model reads a negative prompt only with {told} above 1"


def test_keys_are_described_as_they_are_taken() -> None:
    """A client that checks keys by the description would refuse good ones, or send what is refused."""
    operation = openapi_document(parse_pool(POOL))["paths"]["/v1/images/generations"]["post"]
    described = next(one["schema"] for one in operation["parameters"] if one["name"] == "Idempotency-Key")
    for character in map(chr, range(256)):
        assert bool(re.search(described["pattern"], f"a{character}b")) == character.isprintable(), character
