"""The one place where the gateway's errors become gRPC statuses, with google.rpc details; internal text stays in."""

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

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

DOMAIN = "t2iserving.dev"
_CODES: dict[type[GatewayError], int] = {
    RequestInvalid: code_pb2.INVALID_ARGUMENT,
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
    converted: grpc.Status = rpc_status.to_status(_to_proto(error))
    return converted


def _to_proto(error: ShownError) -> status_pb2.Status:
    if isinstance(error, CallerUnknown):
        status = status_pb2.Status(code=code_pb2.UNAUTHENTICATED, message=str(error))
        _attach(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
        return status
    if isinstance(error, RequestRefused):
        return _refusal(error)
    status = status_pb2.Status(code=_CODES[type(error)], message=str(error))
    if isinstance(error, RequestInvalid):
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
            for field, description in error.violations
        ]
        _attach(status, error_details_pb2.BadRequest(field_violations=fields))
    return status


def _refusal(error: RequestRefused) -> status_pb2.Status:
    refused = error.refused
    status = status_pb2.Status(code=_REFUSED_CODES[refused.reason], message=str(error))
    _attach(status, error_details_pb2.ErrorInfo(reason=refused.reason, domain=DOMAIN))
    if refused.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(1e3 * refused.retry_after_s))
        _attach(status, retry)
    return status


def _attach(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
