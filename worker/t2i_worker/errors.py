"""Errors of the worker. `status` maps them to gRPC.

WorkerError
├── JobInvalid
├── WorkerBusy
├── WorkerDraining
├── WorkerUnready
│   ├── EngineLost
│   ├── OtherModel
│   └── ModelChanging
├── NoSuchModel
├── ModelFixed
├── BudgetSpent
├── JobFailed
│   ├── NotFinite
│   └── OutOfMemory
├── StoppedEarly
└── ModelError
    ├── ModelNotFound
    └── ModelUnsupported
"""

import traceback
from pathlib import Path

from t2i_policy.readiness import ReadyReason
from t2i_runtime.errors import FieldsInvalid


class WorkerError(Exception):
    """Its message is safe to show to clients."""


class JobInvalid(FieldsInvalid, WorkerError):
    """Raised when a request cannot be served as it is; names every field that is wrong."""


class WorkerBusy(WorkerError):
    """Raised when the queue of accepted requests is full; another worker may take the request."""


class WorkerDraining(WorkerError):
    """Raised for requests that arrive before the model is warm or while the worker shuts down."""


class WorkerUnready(WorkerError):
    """Raised while the worker tests itself, after requests failed one after another."""


class EngineLost(WorkerUnready):
    """Raised when the device or the denoise thread is lost, so that the process must end."""

    def __init__(self, message: str, reason: ReadyReason) -> None:
        super().__init__(message)
        self.reason = reason


class OtherModel(WorkerUnready):
    """Raised for a level of a model that this worker does not hold."""

    def __init__(self, asked: str, held: str) -> None:
        super().__init__(
            f"level.model: the level is of {_called(asked)}, and this worker holds {_called(held)}; "
            "send it to a worker that holds the level's model"
        )


class ModelChanging(WorkerUnready):
    """Raised while the worker ends what it has, and loads another model."""


class NoSuchModel(WorkerError):
    """Raised for an order to hold a model that the pool does not have."""


class ModelFixed(WorkerError):
    """Raised for an order to hold another model in a pool whose workers keep theirs."""


def _called(model: str) -> str:
    return f"the model {model!r}" if model else "the pool's own model"


class BudgetSpent(WorkerError):
    """Raised when the budget is spent before the image is done, or too short for what is left to do."""


class JobFailed(WorkerError):
    """Raised when this one request failed; the worker goes on."""


class NotFinite(JobFailed):
    """Raised when the model produces NaN or infinity."""


class OutOfMemory(JobFailed):
    """Raised when a request does not fit into memory even alone."""


class StoppedEarly(WorkerError):
    """Raised when the signal to stop comes before the engine is there."""


class ModelError(WorkerError):
    """Raised when the worker cannot start with this model."""


class ModelNotFound(ModelError):
    """Raised when the source names no folder that we can read."""


class ModelUnsupported(ModelError):
    """Raised for a pipeline that the engine cannot serve, and for a broken folder."""


def where(error: BaseException) -> str:
    """The class of an exception, and the file and line that raised it. Logs show this: its text may hold a prompt."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"
