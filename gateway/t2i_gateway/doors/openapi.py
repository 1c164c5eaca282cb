"""GET /openapi.json: what this very pool takes, from the class that parses it. Answers are described by hand."""

from collections.abc import Callable
from typing import Any

from t2i_api.model import ModelPart
from t2i_api.pool import Pool
from t2i_gateway.doors.fields import FORMATS, EditBody, GenerationBody, ImageBody
from t2i_gateway.doors.forms import FORM_TYPE, JSON_TYPE
from t2i_gateway.doors.models import model_names
from t2i_gateway.request import MAX_GUIDANCE_SCALE, MAX_REQUEST_ID_CHARACTERS, most_steps

Schema = dict[str, Any]
BODY, FORM, IMAGES, ERROR, MODEL = "GenerationBody", "EditBody", "ImagesResponse", "Error", "Model"
SCHEMAS = "#/components/schemas/"
NULL: Schema = {"type": "null"}
#: What `str.isprintable` lets a header's characters be (ISO 8859-1), as `request` checks it.
PRINTABLE = "^[ -~\u00a1-\u00ac\u00ae-\u00ff]*$"
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
#: Fields that are of no use where the pool has nothing for them.
FOR_PARTS: dict[str, Callable[[ModelPart], object]] = {
    "lora": lambda model: model.adapters,
    "control_images": lambda model: model.component_scales("ControlNet"),
    "ip_adapter_images": lambda model: model.component_scales("IPAdapter"),
    "ip_adapter": lambda model: model.component_scales("IPAdapter"),
    "ip_adapter_scale": lambda model: model.component_scales("IPAdapter"),
}
REFUSALS = {
    "400": "A field is wrong; `error.param` names it.",
    "401": "No proof of who asks, or a wrong one.",
    "404": "The pool does not serve this model.",
    "408": "The body came too slowly.",
    "413": "The body is too large.",
    "415": "The body has another Content-Type.",
    "422": "This Idempotency-Key came with another request.",
    "429": "The pool is overloaded; Retry-After and retry-after-ms say when to come back.",
    "500": "Drawing failed.",
    "503": "No worker is ready, there are too many connections, or the gateway shuts down; see Retry-After.",
    "504": "The image cannot be there in time.",
}


def openapi_document(pool: Pool) -> Schema:
    """OpenAPI 3.1. `GET /healthz` and `/readyz` need no proof; everything else needs what the pool asks for."""
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Images of pool {pool.metadata.name}", "version": "v1"},
        "security": [{"token": []}] if pool.spec.security.client_authentication == "Token" else [],
        "paths": {
            "/v1/images/generations": {"post": _drawing("Draw images of a prompt.", JSON_TYPE, BODY)},
            "/v1/images/edits": {"post": _drawing("Draw images from others.", FORM_TYPE, FORM)},
            "/v1/models": {"get": _get("The pool's models, by each of their names.", _list_of(MODEL))},
            "/v1/models/{name}": {"get": {**_get("One of them.", _ref(MODEL), "404"), "parameters": [_name(pool)]}},
            "/healthz": {"get": {**_get("The process answers.", _status("ok")), "security": []}},
            "/readyz": {"get": {**_get("A request could be served now.", _status("ready"), "503"), "security": []}},
        },
        "components": {
            "schemas": {
                BODY: _body(GenerationBody, pool),
                FORM: _form(pool),
                **_parts(pool),
                IMAGES: _images(pool),
                ERROR: _error(),
                MODEL: _model(),
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _body(fields: type[ImageBody], pool: Pool) -> Schema:
    """Of the class, narrowed to what this pool has."""
    model = pool.spec.model
    schema = fields.model_json_schema(ref_template=f"{SCHEMAS}{{model}}")
    schema.pop("$defs", None)
    for name, one_needs in FOR_PARTS.items():
        if not any(map(one_needs, (model, *pool.spec.models.values()))):
            schema["properties"].pop(name, None)
    own: dict[str, Schema] = {
        "model": {"enum": model_names(pool)},
        "size": {**TEXT, "pattern": "^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"},
        "num_inference_steps": {**WHOLE, "minimum": 1, "maximum": most_steps(pool.spec)},
        "guidance_scale": {**NUMBER, "minimum": 0, "maximum": MAX_GUIDANCE_SCALE},
    }
    if pool.spec.gateway.results is not None:
        own["response_format"] = {"enum": ["b64_json", "url"]}
    for name, narrowed in own.items():
        schema["properties"][name]["anyOf"] = [narrowed, NULL]
    schema["properties"]["size"]["description"] += f" This pool serves {model.sizes_served}."
    return schema


def _parts(pool: Pool) -> dict[str, Schema]:
    """The classes within that of a body, those that this pool has a use for."""
    model = pool.spec.model
    found: dict[str, Schema] = GenerationBody.model_json_schema(ref_template=f"{SCHEMAS}{{model}}")["$defs"]
    adapters = {name for one in (model, *pool.spec.models.values()) for name in one.adapter_scales}
    found["LoraBody"]["properties"]["name"] = {"enum": sorted(adapters)}
    found["ComponentImageBody"]["properties"]["component"] = {"enum": sorted(one.name for one in model.components)}
    kept = {"LoraBody": adapters, "ComponentImageBody": model.components}
    return {name: schema for name, schema in found.items() if kept[name]}


def _form(pool: Pool) -> Schema:
    schema = _body(EditBody, pool)
    for field in schema["properties"].values():  # a form has texts, and "null" is one
        if "anyOf" in field:
            field["anyOf"] = [kind for kind in field["anyOf"] if kind != NULL]
            field.pop("default")
    file: Schema = {**TEXT, "contentMediaType": "application/octet-stream"}
    schema["properties"] |= {
        "image": {**file, "description": "The image to start from: PNG, JPEG or WEBP."},
        "image[]": {"type": "array", "items": file, "description": "Several images, for editing models."},
        "mask": {**file, "description": "What is transparent, or else white, is drawn anew."},
    }
    if pool.spec.model.component_scales("IPAdapter"):
        schema["properties"]["ip_adapter_image"] = {**file, "description": "An image for the IP-Adapter."}
    return schema


def _drawing(summary: str, media_type: str, body: str) -> Schema:
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The request's id. A repeat of it joins the first or gets its images; nothing is drawn twice.",
        "schema": {**TEXT, "maxLength": MAX_REQUEST_ID_CHARACTERS, "pattern": PRINTABLE},
    }
    done = _answer("The images; with `stream` the events.", _ref(IMAGES))
    done["content"]["text/event-stream"] = {"schema": TEXT}
    refusals = {status: _answer(text, _ref(ERROR)) for status, text in REFUSALS.items()}
    return {
        "summary": summary,
        "parameters": [key],
        "requestBody": {"required": True, "content": {media_type: {"schema": _ref(body)}}},
        "responses": {"200": done, **refusals},
    }


def _get(summary: str, schema: Schema, *refusals: str) -> Schema:
    answers = {"200": _answer(summary, schema)}
    told = {status: _answer("See `error` or `status`.", {"type": "object"}) for status in ("401", *refusals)}
    return {"summary": summary, "responses": {**answers, **told}}


def _answer(text: str, schema: Schema) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _name(pool: Pool) -> Schema:
    return {"name": "name", "in": "path", "required": True, "schema": {"enum": model_names(pool)}}


def _ref(name: str) -> Schema:
    return {"$ref": f"{SCHEMAS}{name}"}


def _list_of(name: str) -> Schema:
    return _object(object={"const": "list"}, data={"type": "array", "items": _ref(name)})


def _status(word: str) -> Schema:
    return _object(status={"const": word})


def _object(**properties: Schema) -> Schema:
    """An object with all of these fields."""
    return {"type": "object", "properties": properties, "required": [*properties]}


def _model() -> Schema:
    return _object(id=TEXT, object={"const": "model"}, created=WHOLE, owned_by=TEXT)


def _error() -> Schema:
    optional = {"type": ["string", "null"]}
    return _object(error=_object(message=TEXT, type=TEXT, param=optional, code=optional))


def _images(pool: Pool) -> Schema:
    kept = {"b64_json": {**TEXT, "contentEncoding": "base64"}}
    link = {"url": {**TEXT, "format": "uri"}}
    data = _object(**kept) if pool.spec.gateway.results is None else {"anyOf": [_object(**kept), _object(**link)]}
    steps = {"phrase": TEXT, "skipped_steps": WHOLE, "num_inference_steps": WHOLE}
    level = {"type": "object", "properties": steps | ({"model": TEXT} if pool.spec.models else {})}
    times = _object(**dict.fromkeys(("queue", "wait", "denoise", "encode", "total"), NUMBER))
    image = _object(
        index=WHOLE,
        wanted_level=level,
        served_level=level,
        reason=TEXT,
        message=TEXT,
        expected_quality_percent={"type": ["number", "null"]},
        seed=WHOLE,
        timings_ms=times,
        retries=WHOLE,
        replayed={"type": "boolean"},
        reproduction={"type": ["object", "null"]},
        prompt_cuts={"type": "array"},
    )
    return _object(
        created=WHOLE,
        data={"type": "array", "items": data},
        background={"const": "opaque"},
        output_format={"enum": [*FORMATS]},
        quality=TEXT,
        size=TEXT,
        usage=_object(input_tokens=WHOLE, output_tokens=WHOLE, total_tokens=WHOLE, images=WHOLE, steps=NUMBER),
        t2i=_object(request_id=TEXT, images={"type": "array", "items": image}),
    )
