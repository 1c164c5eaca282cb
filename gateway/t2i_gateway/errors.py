"""Errors of the gateway.

GatewayError
├── RequestInvalid             a field cannot be served; carries violations
├── RequestRefused             admission said no; carries the policy's reason and when to come back
├── DeadlineExceeded           the time ran out before the image
├── WorkersUnavailable         no worker could take or finish it
│   └── ModelGone              none that holds the model it was meant for; another model may serve it
├── ModelUnknown               the pool has no model of the name that was asked for
├── ContentRefused             the pool's classifier refuses the prompt or the image; carries its category
├── SafetyUnchecked            the classifier did not answer, and the pool does not serve what it has not seen
├── ImageUnsigned              the image was drawn, but could not be signed, and the pool sends none unsigned
├── ResultsNotKept             the images were drawn, but could not be kept for links
├── GenerationFailed           workers tried and failed on this very request
├── RequestIdReused            the same request id came with another request
└── GatewayDraining            shutting down

Beside it `t2i_runtime.errors.CallerUnknown`: no identity, or one the pool does not know.
"""

from t2i_policy.request.admission import Refused
from t2i_runtime.errors import FieldsInvalid


class GatewayError(Exception):
    """Root of the tree; messages are safe to show to clients."""


class RequestInvalid(FieldsInvalid, GatewayError):
    """Raised when a request cannot be served as it is; names every field that is wrong."""


class RequestRefused(GatewayError):
    """Raised when admission refuses a request, or workers no longer make its deadline."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(f"{refused.reason}: {refused.message}")
        self.refused = refused


class DeadlineExceeded(GatewayError):
    """Raised when the time runs out before the image is done."""


class WorkersUnavailable(GatewayError):
    """Raised when no worker could take the request or finish it."""


class ModelGone(WorkersUnavailable):
    """Raised when no worker holds the model a request waits for, or all that do have failed it."""


class ModelUnknown(GatewayError):
    """Raised when a request asks for a model that the pool does not have; names those that it has."""


class ContentRefused(GatewayError):
    """Raised when the pool's classifier refuses the prompt or the image. What it says is shown to the client."""

    def __init__(self, place: str, category: str = "", reason: str = "") -> None:
        said = ": ".join(part for part in (category, reason) if part)
        super().__init__(f"the {place} is against this pool's content policy" + (f" ({said})" if said else ""))
        self.place = place
        self.category = category


class SafetyUnchecked(GatewayError):
    """Raised when a prompt or an image could not be checked; it may be tried again."""


class ImageUnsigned(GatewayError):
    """Raised when an image could not be signed; it may be tried again."""


class ResultsNotKept(GatewayError):
    """Raised when images were drawn, but their bucket did not take them."""


class GenerationFailed(GatewayError):
    """Raised when workers tried and failed on this very request."""


class RequestIdReused(GatewayError):
    """Raised when the same request id comes with another request."""


class GatewayDraining(GatewayError):
    """Raised for requests that arrive while the gateway shuts down."""
