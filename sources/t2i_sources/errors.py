"""Errors of sources.

SourceMissing
└── SourceUnreachable
"""


class SourceMissing(Exception):
    """Raised when a folder does not exist or is of another kind. It names the field of the pool and the next step."""


class SourceUnreachable(SourceMissing):
    """Raised when a download fails now; later it may work. The message holds the hub's words."""
