"""Errors of the worker.

WorkerError
├── RequestInvalid             a field of the request cannot be served; carries (field, description) pairs
├── WorkerBusy                 the queue of accepted requests is full; try another worker
├── WorkerDraining             no longer, or not yet, taking requests
├── WorkerUnready              its requests fail one after another, so it tests itself first; try another worker
│   └── EngineLost             the device or the denoise thread is gone: the process must end
├── DeadlineExceeded           the budget was spent before the image was done
├── GenerationFailed           this one request failed; the worker goes on
│   ├── NotFinite              the model produced NaN or infinity for it
│   └── OutOfMemory            it does not fit even alone
├── StoppedEarly               told to stop before the engine was there
└── ModelError                 the worker cannot start
    ├── ModelNotFound          the source names no folder we can read
    └── ModelUnsupported       a pipeline class without an adapter, or a broken folder
"""

from collections.abc import Sequence

from t2i_policy.readiness import ReadyReason


class WorkerError(Exception):
    """Root of the tree; messages are safe to show to clients."""


class JobInvalid(WorkerError):
    """`violations`: (field, what it should be) pairs."""

    def __init__(self, violations: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {description}" for field, description in violations))
        self.violations = tuple(violations)


class WorkerBusy(WorkerError):
    """See the tree."""


class WorkerDraining(WorkerError):
    """See the tree."""


class WorkerUnready(WorkerError):
    """See the tree."""


class EngineLost(WorkerUnready):
    """`reason`: what is gone."""

    def __init__(self, message: str, reason: ReadyReason) -> None:
        super().__init__(message)
        self.reason = reason


class BudgetSpent(WorkerError):
    """See the tree."""


class JobFailed(WorkerError):
    """See the tree."""


class NotFinite(JobFailed):
    """See the tree."""


class OutOfMemory(JobFailed):
    """See the tree."""


class StoppedEarly(WorkerError):
    """See the tree."""


class ModelError(WorkerError):
    """See the tree."""


class ModelNotFound(ModelError):
    """See the tree."""


class ModelUnsupported(ModelError):
    """See the tree."""
