"""Errors of the worker.

WorkerError
├── JobInvalid                 a field of the request cannot be served; carries violations
├── WorkerBusy                 the queue of accepted requests is full; try another worker
├── WorkerDraining             no longer, or not yet, taking requests
├── WorkerUnready              its requests fail one after another, so it tests itself first; try another worker
│   └── EngineLost             the device or the denoise thread is gone: the process must end
├── BudgetSpent                the budget was spent before the image was done
├── JobFailed                  this one request failed; the worker goes on
│   ├── NotFinite              the model produced NaN or infinity for it
│   └── OutOfMemory            it does not fit even alone
├── StoppedEarly               told to stop before the engine was there
└── ModelError                 the worker cannot start
    ├── ModelNotFound          the source names no folder we can read
    └── ModelUnsupported       a pipeline class without an adapter, or a broken folder
"""

from t2i_policy.readiness import ReadyReason
from t2i_runtime.errors import FieldsInvalid


class WorkerError(Exception):
    """Root of the tree; messages are safe to show to clients."""


class JobInvalid(FieldsInvalid, WorkerError):
    """Raised when a request cannot be served as it is; names every field that is wrong."""


class WorkerBusy(WorkerError):
    """Raised when the queue of accepted requests is full."""


class WorkerDraining(WorkerError):
    """Raised for requests that arrive before the model is warm or while the worker shuts down."""


class WorkerUnready(WorkerError):
    """Raised while the worker tests itself, after requests failed one after another."""


class EngineLost(WorkerUnready):
    """`reason`: what is gone."""

    def __init__(self, message: str, reason: ReadyReason) -> None:
        super().__init__(message)
        self.reason = reason


class BudgetSpent(WorkerError):
    """Raised when the budget is spent before the image is done."""


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
    """Raised for a pipeline class without an adapter, and for a broken folder."""
