"""Errors that every process shares.

SecurityError
├── CertificatesUnusable   a folder holds no usable tls.crt, tls.key and ca.crt
├── TokensUnusable         the file of tokens is missing or has a bad line
├── AddressUnusable        a server cannot listen where it should
└── CallerUnknown          a caller did not prove who it is; carries the reason in a word

FieldsInvalid              fields of a request cannot be served; mixed into the trees of gateway and worker
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class SecurityError(Exception):
    """Root of the tree."""


class CertificatesUnusable(SecurityError):
    """Raised when a mounted certificate is missing or broken; the message names file and next step."""


class TokensUnusable(SecurityError):
    """Raised when the file of tokens is missing or has a bad line; the message names the line, never a token."""


class AddressUnusable(SecurityError):
    """Raised when a server cannot listen on an address; the message names it."""


class UnknownReason(StrEnum):
    """Why a caller is unknown."""

    NO_TOKEN = "NoToken"  # noqa: S105 - a reason, no secret
    TOKEN_UNKNOWN = "TokenUnknown"  # noqa: S105
    NO_CERTIFICATE = "NoCertificate"
    NAME_UNCLEAR = "NameUnclear"
    TENANT_NOT_ALLOWED = "TenantNotAllowed"


class CallerUnknown(SecurityError):
    """Raised when a caller does not prove who it is; the message is safe to show to it."""

    def __init__(self, reason: UnknownReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Violation(NamedTuple):
    """A field of a request, and what it should be."""

    field: str
    description: str


class FieldsInvalid(Exception):
    """Raised when a request cannot be served as it is; names every field that is wrong."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{violation.field}: {violation.description}" for violation in violations))
        self.violations = tuple(violations)
