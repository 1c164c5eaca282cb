"""Errors of the security component.

SecurityError
├── CertificatesUnusable   a folder holds no usable tls.crt, tls.key and ca.crt
├── TokensUnusable         the file of tokens is missing or has a bad line
├── AddressUnusable        a server cannot listen where it should
└── CallerUnknown          a caller did not prove who it is; carries the reason in a word
"""

from enum import StrEnum


class SecurityError(Exception):
    """Root of the tree."""


class CertificatesUnusable(SecurityError):
    """See the tree; the message names file and next step."""


class TokensUnusable(SecurityError):
    """See the tree; the message names the line, never a token."""


class AddressUnusable(SecurityError):
    """See the tree; the message names the address."""


class UnknownReason(StrEnum):
    """Why a caller is unknown."""

    NO_TOKEN = "NoToken"  # noqa: S105 - a reason, no secret
    TOKEN_UNKNOWN = "TokenUnknown"  # noqa: S105
    NO_CERTIFICATE = "NoCertificate"
    NAME_UNCLEAR = "NameUnclear"
    TENANT_NOT_ALLOWED = "TenantNotAllowed"


class CallerUnknown(SecurityError):
    """See the tree; the message is safe to show to the caller."""

    def __init__(self, reason: UnknownReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
