"""From an error to a gRPC status with google.rpc details. Which error has which code is each component's own table."""

from collections.abc import Sequence

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from t2i_api.names import GROUP
from t2i_runtime.errors import Violation


def to_grpc_status(code: int, message: str, *details: Message | None) -> grpc.Status:
    """`code` is google.rpc's; details that are None are left out."""
    status = status_pb2.Status(code=code, message=message)
    for detail in details:
        if detail is not None:
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
    converted: grpc.Status = rpc_status.to_status(status)
    return converted


def bad_request(violations: Sequence[Violation]) -> Message:
    """Which fields are wrong, and what they should be."""
    details: Message = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in violations
        ]
    )
    return details


def violations_of(error: grpc.aio.AioRpcError) -> list[Violation]:
    """What `bad_request` said in a status that came over the wire; empty if it said nothing."""
    status, told = rpc_status.from_call(error), error_details_pb2.BadRequest()
    for packed in () if status is None else status.details:
        packed.Unpack(told)
    return [Violation(one.field, one.description) for one in told.field_violations]


def error_info(reason: str) -> Message:
    """The reason in a word, for programs."""
    info: Message = error_details_pb2.ErrorInfo(reason=reason, domain=GROUP)
    return info


def retry_info(after_s: float | None) -> Message | None:
    """When to come back; None = nothing is known."""
    if after_s is None:
        return None
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(round(1e3 * after_s))
    retry: Message = info
    return retry
