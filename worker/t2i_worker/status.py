"""The one place where this worker's errors become gRPC statuses, with google.rpc details; internal text stays in."""

import grpc
from google.rpc import code_pb2

from t2i_runtime.status import bad_request, retry_info, to_grpc_status
from t2i_worker.errors import (
    BudgetSpent,
    JobInvalid,
    ModelFixed,
    NoSuchModel,
    WorkerBusy,
    WorkerDraining,
    WorkerError,
    WorkerUnready,
)

_CODES: dict[type[WorkerError], int] = {
    WorkerDraining: code_pb2.UNAVAILABLE,
    WorkerUnready: code_pb2.UNAVAILABLE,
    BudgetSpent: code_pb2.DEADLINE_EXCEEDED,
    NoSuchModel: code_pb2.NOT_FOUND,
    ModelFixed: code_pb2.FAILED_PRECONDITION,
}
BUSY_RETRY_S = 0.2


def to_status(error: WorkerError) -> grpc.Status:
    """The status of an error; a failed job and everything unlisted is INTERNAL."""
    match error:
        case JobInvalid():
            return to_grpc_status(code_pb2.INVALID_ARGUMENT, str(error), bad_request(error.violations))
        case WorkerBusy():
            return to_grpc_status(code_pb2.RESOURCE_EXHAUSTED, str(error), retry_info(BUSY_RETRY_S))
        case _:
            code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), code_pb2.INTERNAL)
            return to_grpc_status(code, str(error))
