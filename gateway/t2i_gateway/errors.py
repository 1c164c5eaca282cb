"""Errors of the gateway.

GatewayError
├── RequestInvalid             a field cannot be served; carries (field, description) pairs
├── RequestRefused             admission said no; carries the policy's reason and when to come back
├── DeadlineExceeded           the time ran out before the image
├── WorkersUnavailable         no worker could take or finish it
├── GenerationFailed           workers tried and failed on this very request
├── RequestIdReused            the same request id came with another request
└── GatewayDraining            shutting down

Beside it `t2i_runtime.errors.CallerUnknown`: no identity, or one the pool does not know.
"""

from collections.abc import Sequence

from t2i_policy.request.admission import Refused


class GatewayError(Exception):
    """Root of the tree; messages are safe to show to clients."""


class RequestInvalid(GatewayError):
    """`violations`: (field, what it should be) pairs."""

    def __init__(self, violations: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {description}" for field, description in violations))
        self.violations = tuple(violations)


class RequestRefused(GatewayError):
    """See the tree."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(f"{refused.reason}: {refused.message}")
        self.refused = refused


class DeadlineExceeded(GatewayError):
    """See the tree."""


class WorkersUnavailable(GatewayError):
    """See the tree."""


class GenerationFailed(GatewayError):
    """See the tree."""


class RequestIdReused(GatewayError):
    """See the tree."""


class GatewayDraining(GatewayError):
    """See the tree."""
