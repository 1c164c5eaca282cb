"""The one place where this worker's errors become gRPC statuses, with google.rpc details; internal text stays in."""

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from t2i_worker.errors import (
    BudgetSpent,
    JobInvalid,
    WorkerBusy,
    WorkerDraining,
    WorkerError,
    WorkerUnready,
)

_CODES: dict[type[WorkerError], int] = {
    JobInvalid: code_pb2.INVALID_ARGUMENT,
    WorkerBusy: code_pb2.RESOURCE_EXHAUSTED,
    WorkerDraining: code_pb2.UNAVAILABLE,
    WorkerUnready: code_pb2.UNAVAILABLE,
    BudgetSpent: code_pb2.DEADLINE_EXCEEDED,
}
BUSY_RETRY_MS = 200


def to_status(error: WorkerError) -> grpc.Status:
    """The status of an error; GenerationFailed and everything unlisted is INTERNAL."""
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), code_pb2.INTERNAL)
    status = status_pb2.Status(code=code, message=str(error))
    if isinstance(error, JobInvalid):
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
            for field, description in error.violations
        ]
        _attach(status, error_details_pb2.BadRequest(field_violations=fields))
    if isinstance(error, WorkerBusy):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(BUSY_RETRY_MS)
        _attach(status, retry)
    converted: grpc.Status = rpc_status.to_status(status)
    return converted


def _attach(status: status_pb2.Status, detail: error_details_pb2.BadRequest | error_details_pb2.RetryInfo) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
