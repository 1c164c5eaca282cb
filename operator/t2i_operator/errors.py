"""Errors of the operator.

OperatorError
├── ApiError               the API server said no or did not answer
│   ├── NotFound           404
│   ├── Conflict           409: somebody wrote in between, or the UID is another
│   ├── WriteRefused       400, 403, 422 ...: asking again will not help soon
│   └── TryLater           429, 5xx, timeouts, lost connections; says when if the server did
├── LeaseLost              we may not write any more
└── TemplateInvalid        a pod template cannot be merged; names the field
"""


class OperatorError(Exception):
    """Root of the tree."""


class ApiError(OperatorError):
    """`status` is HTTP's; 0 = no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}" if status else message)
        self.status = status


class NotFound(ApiError):
    """Raised for a 404."""


class Conflict(ApiError):
    """Raised for a 409: somebody wrote in between, or the UID is another."""


class WriteRefused(ApiError):
    """Raised for a 400, 403, 422 and the like: asking again will not help soon."""


class TryLater(ApiError):
    """`after_s` as the server asked, None if it did not."""

    def __init__(self, status: int, message: str, after_s: float | None = None) -> None:
        super().__init__(status, message)
        self.after_s = after_s


class LeaseLost(OperatorError):
    """Raised before a write that we may not do any more."""


class TemplateInvalid(OperatorError):
    """Raised when a pod template cannot be merged; names the field."""
