"""The one place where the gateway's errors become statuses: gRPC's, with google.rpc details, and HTTP's.

Internal text stays in.
"""

from typing import NamedTuple

import grpc
from google.rpc import code_pb2

from t2i_gateway.errors import (
    ContentRefused,
    DeadlineExceeded,
    GatewayDraining,
    GatewayError,
    GenerationFailed,
    ImageUnsigned,
    ModelGone,
    ModelUnknown,
    RequestIdReused,
    RequestInvalid,
    RequestRefused,
    ResultsNotKept,
    SafetyUnchecked,
    WorkersUnavailable,
)
from t2i_policy.request.admission import NO_WORKERS_RETRY_S, RefusedReason
from t2i_runtime.errors import CallerUnknown
from t2i_runtime.status import bad_request, error_info, retry_info, to_grpc_status


class WireCodes(NamedTuple):
    """What an error is called on each wire."""

    grpc: int
    http: int

    @property
    def grpc_name(self) -> str:
        return str(code_pb2.Code.Name(self.grpc))


#: What a caller gets to see; everything else stays inside.
SHOWN_ERRORS = (GatewayError, CallerUnknown)
ShownError = GatewayError | CallerUnknown

CONTENT_POLICY_VIOLATION = "CONTENT_POLICY_VIOLATION"
_INVALID = WireCodes(code_pb2.INVALID_ARGUMENT, 400)
_UNKNOWN_CALLER = WireCodes(code_pb2.UNAUTHENTICATED, 401)
_EXHAUSTED = WireCodes(code_pb2.RESOURCE_EXHAUSTED, 429)
_UNAVAILABLE = WireCodes(code_pb2.UNAVAILABLE, 503)
_TOO_LATE = WireCodes(code_pb2.DEADLINE_EXCEEDED, 504)
_OUTCOMES: dict[type[GatewayError], WireCodes] = {
    DeadlineExceeded: _TOO_LATE,
    WorkersUnavailable: _UNAVAILABLE,
    ModelGone: _UNAVAILABLE,
    ModelUnknown: WireCodes(code_pb2.NOT_FOUND, 404),
    ContentRefused: WireCodes(code_pb2.FAILED_PRECONDITION, 400),
    SafetyUnchecked: _UNAVAILABLE,
    ImageUnsigned: _UNAVAILABLE,
    ResultsNotKept: _UNAVAILABLE,
    GenerationFailed: WireCodes(code_pb2.INTERNAL, 500),
    RequestIdReused: WireCodes(code_pb2.ALREADY_EXISTS, 422),  # 409 would make clients try the same again
    GatewayDraining: _UNAVAILABLE,
}
_REFUSED: dict[RefusedReason, WireCodes] = {
    RefusedReason.DEADLINE_PASSED: _TOO_LATE,
    RefusedReason.DEADLINE_UNREACHABLE: _TOO_LATE,
    RefusedReason.OVERLOADED: _EXHAUSTED,
    RefusedReason.QUEUE_FULL: _EXHAUSTED,
    RefusedReason.IMAGES_FULL: _EXHAUSTED,
    RefusedReason.RATE_LIMITED: _EXHAUSTED,
    RefusedReason.NO_WORKERS: _UNAVAILABLE,
}


def outcome_of(error: ShownError) -> WireCodes:
    """What the error is called on each wire."""
    match error:
        case CallerUnknown():
            return _UNKNOWN_CALLER
        case RequestRefused(refused=refused):
            return _REFUSED[refused.reason]
        case RequestInvalid():
            return _INVALID
        case _:
            return _OUTCOMES[type(error)]


def retry_after_s(error: ShownError) -> float | None:
    """When to come back; None = nothing is known."""
    match error:
        case RequestRefused(refused=refused):
            return refused.retry_after_s
        case ModelGone():
            return NO_WORKERS_RETRY_S
    return None


def to_status(error: ShownError) -> grpc.Status:
    """The gRPC status of an error."""
    code = outcome_of(error).grpc
    match error:
        case CallerUnknown():
            return to_grpc_status(code, str(error), error_info(error.reason))
        case RequestRefused(refused=refused):
            return to_grpc_status(code, str(error), error_info(refused.reason), retry_info(retry_after_s(error)))
        case ContentRefused():
            return to_grpc_status(code, str(error), error_info(CONTENT_POLICY_VIOLATION))
        case RequestInvalid():
            return to_grpc_status(code, str(error), bad_request(error.violations))
        case _:
            return to_grpc_status(code, str(error), retry_info(retry_after_s(error)))
