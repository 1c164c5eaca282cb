"""The one place where the gateway's errors become gRPC statuses, with google.rpc details; internal text stays in."""

import grpc
from google.rpc import code_pb2

from t2i_gateway.errors import (
    DeadlineExceeded,
    GatewayDraining,
    GatewayError,
    GenerationFailed,
    RequestIdReused,
    RequestInvalid,
    RequestRefused,
    WorkersUnavailable,
)
from t2i_policy.request.admission import RefusedReason
from t2i_runtime.errors import CallerUnknown
from t2i_runtime.status import bad_request, error_info, retry_info, to_grpc_status

_CODES: dict[type[GatewayError], int] = {
    DeadlineExceeded: code_pb2.DEADLINE_EXCEEDED,
    WorkersUnavailable: code_pb2.UNAVAILABLE,
    GenerationFailed: code_pb2.INTERNAL,
    RequestIdReused: code_pb2.ALREADY_EXISTS,
    GatewayDraining: code_pb2.UNAVAILABLE,
}
_REFUSED_CODES: dict[RefusedReason, int] = {
    RefusedReason.DEADLINE_PASSED: code_pb2.DEADLINE_EXCEEDED,
    RefusedReason.DEADLINE_UNREACHABLE: code_pb2.DEADLINE_EXCEEDED,
    RefusedReason.OVERLOADED: code_pb2.RESOURCE_EXHAUSTED,
    RefusedReason.QUEUE_FULL: code_pb2.RESOURCE_EXHAUSTED,
    RefusedReason.NO_WORKERS: code_pb2.UNAVAILABLE,
}
#: What a caller gets to see; everything else stays inside.
ShownError = GatewayError | CallerUnknown


def to_status(error: ShownError) -> grpc.Status:
    """The status of an error."""
    match error:
        case CallerUnknown():
            return to_grpc_status(code_pb2.UNAUTHENTICATED, str(error), error_info(error.reason))
        case RequestRefused(refused=refused):
            details = error_info(refused.reason), retry_info(refused.retry_after_s)
            return to_grpc_status(_REFUSED_CODES[refused.reason], str(error), *details)
        case RequestInvalid():
            return to_grpc_status(code_pb2.INVALID_ARGUMENT, str(error), bad_request(error.violations))
        case _:
            return to_grpc_status(_CODES[type(error)], str(error))
