"""Errors of the command line.

CtlError                       shown as one line with the next step; exit code 1
├── StartFailed                a process of the local pool did not come up
├── CallFailed                 the gateway or worker answered with an error status
├── ClusterFailed              the API server or kubectl cannot be used, or has no such pool
├── StoreFailed                the latent store cannot be used
└── InputInvalid               a file or option cannot be used
"""


class CtlError(Exception):
    """Root of the tree."""


class StartFailed(CtlError):
    """Raised when a process of the local pool does not come up."""


class CallFailed(CtlError):
    """`code` is the gRPC code's name, `retry_after_s` when to come back as google.rpc.RetryInfo says; None without."""

    def __init__(self, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.retry_after_s = retry_after_s


class ClusterFailed(CtlError):
    """Raised when the API server or kubectl cannot be used, or there is no such pool."""


class StoreFailed(CtlError):
    """Raised when the latent store cannot be used."""


class InputInvalid(CtlError):
    """Raised when a file or option cannot be used."""
