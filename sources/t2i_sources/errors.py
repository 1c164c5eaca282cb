"""What can be wrong with a source.

SourceMissing            there is no such folder, or it is not what it should be
└── SourceUnreachable    it must be downloaded, and the hub did not answer or said no: may work later
"""


class SourceMissing(Exception):
    """The message names the field of the pool and says what to do."""


class SourceUnreachable(SourceMissing):
    """Not here and not to be had now; the message carries the hub's words."""
