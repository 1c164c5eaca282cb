"""Whether a store serves: failures by reason since the start, and the trouble it is in now. For metrics and conditions.

A store that fails costs steps and no image, so nobody notices it from outside. Each store writes its own health; the
process that owns the store shows it.
"""

import time
from dataclasses import dataclass
from enum import StrEnum

LASTING_S = 15.0  # a server that restarts is back by then


class StoreReason(StrEnum):
    """Why a call failed; values of a metric's label, so there are few."""

    UNREACHABLE = "Unreachable"  # no connection, or one that broke
    NO_ANSWER = "NoAnswer"  # connected, and late
    CERTIFICATES = "Certificates"
    CREDENTIALS = "Credentials"
    NOT_PERMITTED = "NotPermitted"  # the user may not run what is needed
    READ_ONLY = "ReadOnly"  # a replica, or a primary without its replicas: not the server that takes writes
    NOT_READY = "NotReady"  # it loads its data, or has lost its primary
    UNSUPPORTED = "Unsupported"  # cluster mode, a Sentinel, too old
    FULL = "Full"
    FAILED = "Failed"  # any other error


@dataclass(frozen=True, slots=True)
class StoreTrouble:
    """Why the store does not serve, and since when (seconds of `time.monotonic`)."""

    reason: StoreReason
    message: str
    since_s: float


class StoreHealth:
    """One writer, the store; anybody reads. `trouble` is None while the last call was answered."""

    def __init__(self) -> None:
        self.failures: dict[StoreReason, int] = {}
        self.trouble: StoreTrouble | None = None

    def failed(self, reason: StoreReason, message: str) -> None:
        """A call failed. The words of a reason stay while it lasts, so that a condition does not flicker."""
        self.failures[reason] = self.failures.get(reason, 0) + 1
        before = self.trouble
        if before is None or before.reason is not reason:
            since_s = time.monotonic() if before is None else before.since_s
            self.trouble = StoreTrouble(reason, message, since_s)

    def served(self, stored: bool = False) -> None:
        """A call was answered. That a full store can still be read says nothing: it must have stored something."""
        if stored or self.trouble is None or self.trouble.reason is not StoreReason.FULL:
            self.trouble = None

    def lasting(self) -> StoreTrouble | None:
        """The trouble once it has lasted so long that somebody should be told."""
        trouble = self.trouble
        return trouble if trouble is not None and time.monotonic() - trouble.since_s >= LASTING_S else None
