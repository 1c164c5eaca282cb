"""Every error that a client may see has a name on both wires."""

from collections.abc import Iterator

import grpc
import pytest

from t2i_gateway import errors
from t2i_gateway.doors.errors import HttpRefused, error_body, error_headers, status_of
from t2i_gateway.errors import GatewayError, RequestInvalid, RequestRefused
from t2i_gateway.status import ShownError, to_status
from t2i_policy.request.admission import Refused, RefusedReason
from t2i_runtime.errors import CallerUnknown, UnknownReason, Violation


def all_errors() -> Iterator[ShownError]:
    """One of each class, and of each reason of a refusal."""
    for reason in RefusedReason:
        yield RequestRefused(Refused(reason, "busy", 1.5))
    for unknown in UnknownReason:
        yield CallerUnknown(unknown, "who are you")
    yield RequestInvalid([Violation("width", "too wide"), Violation("num_images", "too many")])
    yield HttpRefused(413, "too large", code="body_too_large")
    for name, kind in vars(errors).items():
        plain = isinstance(kind, type) and issubclass(kind, GatewayError) and kind is not GatewayError
        if plain and name not in ("RequestInvalid", "RequestRefused"):
            yield kind("said")


@pytest.mark.parametrize("error", [*all_errors()], ids=lambda error: f"{type(error).__name__}: {error}"[:60])
def test_an_error_has_a_name_on_both_wires(error: ShownError) -> None:
    """A new class that nobody named would end in a fault of the gateway."""
    assert to_status(error).code is not grpc.StatusCode.OK
    assert 400 <= status_of(error) < 600
    told = error_body(error)["error"]
    assert told["message"]
    assert told["type"] in ("invalid_request_error", "rate_limit_error", "server_error")
    if isinstance(error, RequestRefused):
        assert error_headers(error) == {"retry-after": "2", "retry-after-ms": "1500"}
    elif status_of(error) == 503:
        seconds = 10 if isinstance(error, errors.ModelGone) else 1  # a worker has to start
        assert error_headers(error) == {"retry-after": f"{seconds}", "retry-after-ms": f"{1000 * seconds}"}


def test_fields_have_the_names_that_the_client_gave() -> None:
    """All of them are in the message, the first is `param`."""
    error = RequestInvalid([Violation("width", "too wide"), Violation("drawing.images.reference_images[1]", "none")])
    told = error_body(error)["error"]
    assert told["param"] == "size"
    assert told["message"] == "size: too wide; image[1]: none"


def test_sentences_name_fields_as_the_client_does() -> None:
    """Whoever sends a form knows nothing of the wire behind it."""
    error = RequestInvalid([Violation("drawing.images.mask", "it takes drawing.images.init_image or reference_images")])
    assert error_body(error)["error"]["message"] == "mask: it takes image or image[]"
    several = error_body(RequestInvalid([Violation("drawing.images.reference_images", "it takes init_image")]))["error"]
    assert (several["param"], several["message"]) == ("image", "image[]: it takes image")
    reused = error_body(errors.RequestIdReused("this request_id was used for another request"))["error"]
    assert reused["message"] == "this Idempotency-Key was used for another request"
