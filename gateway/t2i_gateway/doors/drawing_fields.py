"""How an image is drawn, as JSON and forms say it: sampler, adapters, arguments, images for components of the pool.

`lora`, `true_cfg_scale` and `max_sequence_length` are called as vLLM-Omni and SGLang call them; the rest as in gRPC.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema

from t2i_gateway.doors.errors import OWN_ARGUMENTS, HttpRefused
from t2i_gateway.errors import RequestInvalid
from t2i_gateway.json_names import load_json
from t2i_protos.v1 import drawing_pb2
from t2i_runtime.drawing import (
    ARGUMENTS,
    MAX_ARGUMENT_CHARACTERS,
    MAX_SAMPLER_CHARACTERS,
    Flag,
    Text,
    WholeNumber,
    argument_in,
    argument_value,
)
from t2i_runtime.errors import Violation
from t2i_runtime.input_images import MAX_CONTROL_IMAGES, MAX_FILE_BYTES, MAX_IP_ADAPTER_IMAGES, MAX_SCALE

MAX_ADAPTERS = 32  # as many as a pool has
MAX_IMAGE_CHARACTERS = MAX_FILE_BYTES * 4 // 3 + 1024  # of base64, perhaps with `data:image/png;base64,` before it
_DATA_URL = "data:image/"
Scale = Annotated[float, Field(ge=0, le=MAX_SCALE)]
Encoded = Annotated[str, Field(max_length=MAX_IMAGE_CHARACTERS), WithJsonSchema({"type": "string"})]


def _argument_schema() -> dict[str, Any]:
    """Of those that are taken. A whole number may be written with a point."""
    kinds: dict[str, Any] = {}
    for name, kind in ARGUMENTS.items():
        match kind:
            case Flag():
                kinds[name] = {"type": "boolean"}
            case Text():
                kinds[name] = {"type": "string", "maxLength": MAX_ARGUMENT_CHARACTERS}
            case _:
                word = "integer" if isinstance(kind, WholeNumber) else "number"
                kinds[name] = {"type": word, "minimum": kind.least, "maximum": kind.most}
    return {"type": "object", "properties": kinds, "additionalProperties": False}


Arguments = Annotated[dict[str, float | bool | str], WithJsonSchema(_argument_schema())]


class _NestedBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class LoraBody(_NestedBody):
    """A LoRA adapter of the pool."""

    name: str
    """Its name in the pool."""
    scale: Scale | None = None
    """How strongly it acts. Left out: as the pool says."""


def _in_a_list(value: object) -> object:
    return [value] if isinstance(value, dict) else value


class _OneOrMore:
    """The schema of a list of which one may stand alone."""

    @staticmethod
    def __get_pydantic_json_schema__(schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        several = handler(schema)
        return {"anyOf": [several["items"], several]}


class ComponentImageBody(_NestedBody):
    """An image for a ControlNet or an IP-Adapter of the pool."""

    component: str
    """Its name in the pool."""
    image: Encoded
    """A PNG, JPEG or WEBP file in base64."""
    scale: Scale | None = None
    """How strongly it acts. Left out: as the pool says."""


class DrawingBody(_NestedBody):
    """The fields that every body has among others."""

    sampler: (
        Annotated[
            str,
            Field(max_length=MAX_SAMPLER_CHARACTERS),
            WithJsonSchema({"type": "string", "maxLength": MAX_SAMPLER_CHARACTERS, "pattern": "^[ -~]*$"}),
        ]
        | None
    ) = None
    """A noise scheduler in place of the model's own, such as dpm++-2m-karras. Served exact."""
    lora: Annotated[list[LoraBody], Field(max_length=MAX_ADAPTERS), BeforeValidator(_in_a_list), _OneOrMore] | None = (
        None
    )
    """LoRA adapters of the pool, one or a list."""
    arguments: Arguments | None = None
    """Further arguments of the model's pipeline, by diffusers' names. Served exact."""
    true_cfg_scale: Annotated[float, Field(ge=0, le=30)] | None = None
    """The argument of that name."""
    max_sequence_length: Annotated[int, Field(ge=1, le=1024)] | None = None
    """The argument of that name."""


class ComponentsBody(_NestedBody):
    """The fields that a body of JSON has besides; forms send files."""

    control_images: Annotated[list[ComponentImageBody], Field(max_length=MAX_CONTROL_IMAGES)] | None = None
    """What a ControlNet of the pool looks at, such as edges. Served exact."""
    ip_adapter_images: Annotated[list[ComponentImageBody], Field(max_length=MAX_IP_ADAPTER_IMAGES)] | None = None
    """What an IP-Adapter of the pool is shown beside the prompt. Served exact."""


def drawing_of(body: DrawingBody) -> drawing_pb2.Drawing | None:
    """The same on the wire of the pool; None = it says nothing.

    Raises:
        HttpRefused: an argument is there twice.
        RequestInvalid: an image is no base64.
    """
    drawing = drawing_pb2.Drawing(sampler=body.sampler or "")
    for name, value in _arguments(body).items():
        drawing.arguments[name].CopyFrom(argument_value(value))
    for lora in body.lora or ():
        drawing.adapters.add(name=lora.name, scale=lora.scale)
    if isinstance(body, ComponentsBody) and (body.control_images or body.ip_adapter_images):
        drawing.images.control_images.extend(_component_images("control_images", body.control_images))
        drawing.images.ip_adapter_images.extend(_component_images("ip_adapter_images", body.ip_adapter_images))
    return drawing if drawing.ByteSize() else None


def _component_images(field: str, told: list[ComponentImageBody] | None) -> Iterator[drawing_pb2.ControlImage]:
    for index, one in enumerate(told or ()):
        image = _file(f"{field}[{index}].image", one.image)
        yield drawing_pb2.ControlImage(component=one.component, image=image, scale=one.scale)


def _arguments(body: DrawingBody) -> Mapping[str, float | bool | str]:
    arguments = dict(body.arguments or {})
    for name in OWN_ARGUMENTS:
        value = getattr(body, name)
        if value is not None and name in arguments:
            raise HttpRefused(400, f"'{name}' is there by itself and in 'arguments': send it once", param=name)
        if value is not None:
            arguments[name] = float(value)
    return arguments


def _file(place: str, encoded: str) -> bytes:
    text = encoded.partition(",")[2] if encoded.startswith(_DATA_URL) else encoded
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise RequestInvalid([Violation(place, "must be a PNG, JPEG or WEBP file in base64")])
    return data


def fields_in(texts: Mapping[str, str]) -> dict[str, Any]:
    """The same fields in a form: `arguments` and `lora` are JSON, or have names as OpenAI's clients write them, such as
    lora[name]. What is not understood stays a text, to be refused by its name.

    Raises:
        HttpRefused: a field is there in both ways.
    """
    found: dict[str, Any] = {}
    for name, text in texts.items():
        field, bracket, inner = name.partition("[")
        if field in found and (field in texts or not bracket):
            raise HttpRefused(400, f"'{field}' is there in two ways: send it once", param=field)
        if not bracket:
            value = _typed(field, text)
        else:
            inner = inner.removesuffix("]")
            told = argument_in(inner, text) if field == "arguments" else _number(text) if inner == "scale" else text
            value = {**found.get(field, {}), inner: told}
        found[field] = value
    return found


def is_drawing_field(name: str) -> bool:
    return name.partition("[")[0] in DrawingBody.model_fields


def _typed(field: str, text: str) -> Any:
    if field == "sampler":
        return text
    try:
        return load_json(text.encode())
    except (ValueError, RecursionError):
        return text


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
