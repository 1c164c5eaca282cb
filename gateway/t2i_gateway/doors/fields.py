"""The body of POST /v1/images/generations: OpenAI's fields, ours beside them, and what they ask of the pool.

A field that OpenAI's API does not have, and we neither, is refused by name, as its server does. None means absent.
"""

import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, WithJsonSchema

from t2i_api.pool import PoolSpec
from t2i_gateway.doors.drawing_fields import ComponentsBody, DrawingBody, drawing_of, fields_in, is_drawing_field
from t2i_gateway.doors.errors import HttpRefused
from t2i_gateway.errors import RequestInvalid
from t2i_gateway.json_names import NameRepeated, load_json, unreadable_value
from t2i_gateway.request import MAX_IMAGES, MAX_PROMPT_CHARACTERS, steps_violations
from t2i_protos.v1 import gateway_pb2, level_pb2
from t2i_runtime.input_images import MAX_SCALE

B = TypeVar("B", bound=BaseModel)
MAX_PARTIAL_IMAGES = 3
Quality = Literal["auto", "low", "medium", "high", "standard", "hd"]
OutputFormatName = Literal["png", "jpeg", "webp"]
FORMATS: dict[str, level_pb2.OutputFormat.ValueType] = {
    "png": level_pb2.OUTPUT_FORMAT_PNG,
    "jpeg": level_pb2.OUTPUT_FORMAT_JPEG,
    "webp": level_pb2.OUTPUT_FORMAT_WEBP,
}
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_CODES = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
_TYPE_ERRORS = re.compile(r"_type$|_parsing$")


OPAQUE = WithJsonSchema({"enum": ["auto", "opaque"]})
_LENGTH = {"type": "string", "maxLength": MAX_PROMPT_CHARACTERS}
#: A text without NUL; one to draw has more than white space. Checked with all other doors' fields, here only told.
PLAIN_TEXT = WithJsonSchema({**_LENGTH, "pattern": r"^[^\u0000]*$"})
DRAWABLE = WithJsonSchema({**_LENGTH, "pattern": r"^[^\u0000]*[^\s\u0000-\u001f\u0085][^\u0000]*$"})


class ImageBody(DrawingBody):
    """What a client may say of the images that it wants."""

    prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS), DRAWABLE]
    """What to draw."""
    model: str | None = None
    """A name of GET /v1/models. Left out: the pool's model, or whichever it chooses of several."""
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | None = None
    """Images of this prompt. All are drawn or none; their seeds are in a row."""
    size: str | None = None
    """WIDTHxHEIGHT, one of the pool's sizes. auto: the pool's default size."""
    quality: Quality | None = None
    """How far quality may bend under load. auto: as far as the pool's own floor."""
    response_format: Annotated[Literal["b64_json", "url"], WithJsonSchema({"const": "b64_json"})] | None = None
    """b64_json, the default, or url where the pool keeps images for links. A stream has b64_json only."""
    output_format: OutputFormatName | None = None
    """Format of the image files. Left out: png."""
    output_compression: Annotated[int, Field(ge=0, le=100), WithJsonSchema({"const": 100})] | None = None
    """Only 100, the pool's own compression."""
    background: Annotated[Literal["auto", "opaque", "transparent"], OPAQUE] | None = None
    """Images are opaque, so transparent is refused."""
    moderation: Literal["auto", "low"] | None = None
    """Taken and not used: the pool's owner decides what is filtered."""
    style: Literal["vivid", "natural"] | None = None
    """Taken and not used: the model has one style."""
    user: str | None = None
    """Taken and not used: who asks is told by the token or the certificate."""
    stream: bool | None = None
    """Answer with server-sent events: partial images, then each image when it is done."""
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL_IMAGES)] | None = None
    """Previews of each image at most, with stream. Short runs show fewer."""

    negative_prompt: Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS), PLAIN_TEXT] | None = None
    """What not to draw."""
    seed: Annotated[int, Field(ge=0, lt=2**64)] | None = None
    """Of the first image. Left out: a random one, which the answer names."""
    num_inference_steps: int | None = None
    """Run this schedule, without approximation; on the pool's own model unless `model` says another."""
    guidance_scale: float | None = None
    """Classifier-free guidance scale. Left out: the pool's, or that of the model that serves it."""
    min_quality_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Expected quality of every image at least, percent of an exact one's. It can only raise the pool's floor. Not
    beside a shorter `num_inference_steps`."""
    exact: bool | None = None
    """Run the full schedule of the pool's own model, or do not serve the request."""
    prompt_in_file: bool | None = None
    """Write the prompts into the metadata of the image files. Left out: as the pool says."""

    @property
    def format_name(self) -> OutputFormatName:
        return self.output_format or "png"


class GenerationBody(ImageBody, ComponentsBody):
    """The same for images that are made from a prompt."""


class EditBody(ImageBody):
    """The same for images that are made from others; the images themselves are files of the form."""

    strength: float | None = None
    """How far from the image, above 0 to 1. Left out: as the pipeline does."""
    input_fidelity: Literal["low", "high"] | None = None
    """Taken and not used: strength says it."""
    ip_adapter: str | None = None
    """The IP-Adapter of the pool that the file ip_adapter_image is shown to."""
    ip_adapter_scale: Annotated[float, Field(ge=0, le=MAX_SCALE)] | None = None
    """How strongly it acts. Left out: as the pool says."""


def parse_body(data: bytes) -> GenerationBody:
    """Raises:
    HttpRefused: it is no JSON, or a field is wrong; names the first such field.
    """
    return parse_json(GenerationBody, data)


def parse_json(kind: type[B], data: bytes) -> B:
    """Raises:
    HttpRefused: it is no JSON, or a field is wrong; names the first such field.
    """
    try:
        body = kind.model_validate_json(data)
        load_json(data)  # pydantic takes the last of two equal names
    except ValidationError as error:
        raise _unreadable(error, data) or _refusal(error) from None  # the cause would carry the prompt
    except NameRepeated as error:
        raise given_twice(error.name) from None
    return body


def given_twice(name: str) -> HttpRefused:
    return HttpRefused(400, f"'{name[:64]}' is given twice: send it once", param=name[:64], code="duplicate_parameter")


def parse_fields(texts: dict[str, str]) -> EditBody:
    """Of a form, where every value is a text.

    Raises:
        HttpRefused: a field is wrong; names the first such field.
    """
    drawing = fields_in({name: text for name, text in texts.items() if is_drawing_field(name)})
    try:
        body = EditBody.model_validate_strings(
            {name: text for name, text in texts.items() if not is_drawing_field(name)}
        )
        drawn = DrawingBody.model_validate(drawing)
        return body.model_copy(update={name: getattr(drawn, name) for name in drawn.model_fields_set})
    except ValidationError as error:
        raise _refusal(error) from None


def _unreadable(error: ValidationError, data: bytes) -> HttpRefused | None:
    """What only one value is wrong by, where the parser says no more than that the whole cannot be read."""
    if error.errors(include_url=False, include_context=False, include_input=False)[0]["type"] != "json_invalid":
        return None
    found = unreadable_value(data)
    if found is None:
        return None
    return HttpRefused(400, f"Invalid value for '{found.field}': {found.description}.", param=found.field)


def _refusal(error: ValidationError) -> HttpRefused:
    first = error.errors(include_url=False, include_context=True, include_input=False)[0]
    kind, where = str(first["type"]), first["loc"]
    if kind == "json_invalid":
        return HttpRefused(400, "the body is not valid JSON: send one JSON object", code="invalid_json")
    if not where:
        return HttpRefused(400, "the body must be a JSON object with at least a prompt", code="invalid_type")
    param = str(where[0]) + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where[1:])
    code = _CODES.get(kind, "invalid_type" if _TYPE_ERRORS.search(kind) else "invalid_value")
    match code:
        case "missing_required_parameter":
            text = f"Missing required parameter: '{param}'."
        case "unknown_parameter":
            text = f"Unknown parameter: '{param[:64]}'. GET /openapi.json lists those that there are."
        case _:
            text = f"Invalid {'type' if code == 'invalid_type' else 'value'} for '{param}': {_plain(first)}."
    return HttpRefused(400, text, param=param[:64], code=code)


def _plain(first: Any) -> str:
    """pydantic's sentence without its capital."""
    text = str(first["msg"])
    return text[:1].lower() + text[1:]


def to_message(body: ImageBody, spec: PoolSpec, request_id: str) -> gateway_pb2.GenerateRequest:
    """The same request on the wire of the pool. `request_id` empty = the client chose none.

    Raises:
        HttpRefused: a field asks for what no pool has.
        RequestInvalid: a number is beyond the pool's bounds.
    """
    for refusal in _refusals(body, spec):
        raise refusal
    message = gateway_pb2.GenerateRequest(
        prompt=body.prompt,
        negative_prompt=body.negative_prompt or "",
        request_id=request_id,
        output_format=FORMATS[body.format_name],
        num_images=body.n or 1,
        preview_every_steps=preview_every(body, spec),
    )
    _set_floor(message, body, spec)
    if body.size not in (None, "auto"):
        message.width, message.height = _width_and_height(str(body.size), spec)
    if body.seed is not None:
        message.seed = body.seed
    if body.guidance_scale is not None:
        message.guidance_scale = body.guidance_scale
    if (drawing := drawing_of(body)) is not None:
        message.drawing.CopyFrom(drawing)
    if body.prompt_in_file is not None:
        message.prompt_in_file = body.prompt_in_file
    if body.num_inference_steps is not None:
        if wrong := [*steps_violations(body.num_inference_steps, spec)]:
            raise RequestInvalid(wrong)  # here, because the wire holds no such numbers
        message.num_inference_steps = body.num_inference_steps
    return message


def _set_floor(message: gateway_pb2.GenerateRequest, body: ImageBody, spec: PoolSpec) -> None:
    """What `quality` means in this pool; fields of ours beside it can only ask for more.

    A word is about what load may do. It does nothing to a schedule that the request fixes.
    """
    message.exact, floor = bool(body.exact), body.min_quality_percent or 0
    if body.quality is not None and body.quality != "auto":
        part = spec.gateway.quality(body.quality)
        if body.num_inference_steps is None:
            message.exact, floor = message.exact or part.exact, max(floor, part.min_quality_percent)
    message.min_quality_percent = floor


def preview_every(body: ImageBody, spec: PoolSpec) -> int:
    """Steps between previews, so that a run of the full schedule shows as many as were asked for; 0 = none.

    Of the model that is demanded, else of the pool's own.
    """
    if not body.stream or not body.partial_images:
        return 0
    steps = body.num_inference_steps or spec.schedules.get(body.model or "", spec.base_steps)
    every = math.ceil(steps / (body.partial_images + 1))
    shown = (steps - 1) // every  # after the last step there is the image
    return every if shown >= body.partial_images else max(1, (steps - 1) // body.partial_images)


def _width_and_height(size: str, spec: PoolSpec) -> tuple[int, int]:
    found = _SIZE.fullmatch(size)
    if found is None:
        served = f"this pool makes images of {spec.model.sizes_served} pixels"
        raise HttpRefused(400, f"Invalid value for 'size': say WIDTHxHEIGHT or auto; {served}", param="size")
    return int(found[1]), int(found[2])


def _refusals(body: ImageBody, spec: PoolSpec) -> Iterator[HttpRefused]:
    if body.response_format == "url" and spec.gateway.results is not None and body.stream:
        text = "a stream sends images as b64_json: leave response_format out, or stream"
        yield HttpRefused(400, text, param="response_format")
    elif body.response_format == "url" and spec.gateway.results is None:
        text = "images are not kept here, so there is no url: ask for b64_json, or leave response_format out"
        yield HttpRefused(400, text, param="response_format")
    if body.background == "transparent":
        text = "the model draws opaque images: ask for opaque or auto"
        yield HttpRefused(400, text, param="background")
    if body.output_compression not in (None, 100):
        text = "compression cannot be chosen here: ask for 100, or leave output_compression out"
        yield HttpRefused(400, text, param="output_compression")
