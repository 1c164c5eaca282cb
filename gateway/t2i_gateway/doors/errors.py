"""Errors that only HTTP knows, and how every error is told: {"error": {message, type, param, code}} as OpenAI does.

GatewayError
└── RequestInvalid
    └── HttpRefused    the request cannot be read, or asks for what is not here; carries its status
ClientGone             the client left; nobody is told
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from t2i_gateway.errors import (
    ContentRefused,
    DeadlineExceeded,
    ModelUnknown,
    RequestIdReused,
    RequestInvalid,
    RequestRefused,
)
from t2i_gateway.status import ShownError, outcome_of, retry_after_s
from t2i_runtime.errors import CallerUnknown, Violation

INVALID_REQUEST, SERVER_ERROR = "invalid_request_error", "server_error"
CLIENT_GONE = 499
#: What a field of the wire contract is called here.
_PARAMS = {
    "width": "size",
    "height": "size",
    "num_images": "n",
    "request_id": "Idempotency-Key",
    "drawing.images.init_image": "image",
    "drawing.images.mask": "mask",
    "drawing.images.strength": "strength",
    "drawing.images": "image",
    "drawing.sampler": "sampler",
    "drawing.adapters": "lora",
}
#: Arguments of the pipeline that are fields by themselves, too.
OWN_ARGUMENTS = ("true_cfg_scale", "max_sequence_length")
_ARGUMENT = re.compile(r"drawing\.arguments\['([^']+)'\]")
_COMPONENTS = ("drawing.images.control_images", "drawing.images.ip_adapter_images")
_REFERENCES = "drawing.images.reference_images"
#: The same within a sentence, where several images have the name that the form gives them.
_WORDS = {
    "init_image": "image",
    "reference_images": "image[]",
    "mask": "mask",
    "strength": "strength",
    "request_id": "Idempotency-Key",
}
_NAMED = re.compile(rf"\b(?:drawing\.images\.)?({'|'.join(_WORDS)})\b")
UNAVAILABLE_RETRY_AFTER_S = 1.0  # where nothing else is known: another gateway or worker may be there by then


class HttpRefused(RequestInvalid):
    """Raised when a request cannot be read, or asks for what is not here. `param` "" = it is about no field."""

    def __init__(self, status: int, message: str, *, param: str = "", code: str = "invalid_value") -> None:
        super().__init__([Violation(param, message)])
        self.status = status
        self.param = param
        self.code = code

    def __str__(self) -> str:
        return self.violations[0].description


class ClientGone(Exception):
    """Raised when the client left before its answer."""


def status_of(error: ShownError) -> int:
    return error.status if isinstance(error, HttpRefused) else outcome_of(error).http


def error_body(error: ShownError) -> dict[str, Any]:
    """The error in OpenAI's shape."""
    message, param, code = str(error), None, None
    match error:
        case HttpRefused():
            param, code = error.param or None, error.code
        case RequestInvalid():
            names = [_param(violation.field) for violation in error.violations]
            told = zip(names, error.violations, strict=True)
            message = "; ".join(f"{name}: {_in_words(violation.description)}" for name, violation in told)
            param, code = names[0].removesuffix("[]"), "invalid_value"  # OpenAI calls one and several `image`
        case ModelUnknown():
            param, code = "model", "model_not_found"
        case CallerUnknown():
            code = "invalid_api_key"
        case RequestRefused(refused=refused):
            code = str(refused.reason)
        case RequestIdReused():
            message, param, code = _in_words(message), "Idempotency-Key", "idempotency_key_reused"
        case ContentRefused():
            code = "content_policy_violation"
        case DeadlineExceeded():
            code = "deadline_exceeded"
    return {"error": {"message": message, "type": _type(status_of(error)), "param": param, "code": code}}


def _in_words(text: str) -> str:
    """A sentence about fields of the wire contract, with the names that they have here."""
    arguments = _ARGUMENT.sub(lambda found: _argument(found[1]), text)
    return _NAMED.sub(lambda found: _WORDS[found[1]], arguments)


def _param(field: str) -> str:
    """`drawing.images.reference_images[1]` is the second of several images, without a number all of them."""
    if field == _REFERENCES:
        return "image[]"
    if field.startswith(_COMPONENTS):
        return field.removeprefix("drawing.images.")
    if (argument := _ARGUMENT.match(field)) is not None:
        return _argument(argument[1])
    if field.startswith(_REFERENCES):
        return f"image{field.removeprefix(_REFERENCES)}"
    return _PARAMS.get(field, field)


def _argument(name: str) -> str:
    return name if name in OWN_ARGUMENTS else f"arguments.{name}"


def _type(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return INVALID_REQUEST if status < 500 else SERVER_ERROR


def error_headers(error: ShownError) -> Mapping[str, str]:
    """When to come back, in whole seconds for all and in milliseconds for OpenAI's clients; whether that has sense."""
    if isinstance(error, CallerUnknown):
        return {"www-authenticate": "Bearer"}
    after_s = retry_after_s(error)
    if after_s is None:
        if status_of(error) != 503:
            return {}
        after_s = UNAVAILABLE_RETRY_AFTER_S
    return {"retry-after": str(math.ceil(after_s)), "retry-after-ms": str(round(1e3 * after_s))}
