"""Errors of the cache.

CacheError
├── StoreError                 the store cannot serve; callers go on without the latent
│   ├── StoreUrlError          the URL names no store we have
│   ├── StoreFull              no space left
│   ├── StoreUnavailable       I/O failed
│   └── FollowerTooSlow        whoever follows its changes does not keep up; begin anew
└── RecordError                bytes that are not the latent they should be
    ├── RecordTruncated        shorter than its header says
    ├── RecordCorrupt          checksum, magic or header wrong, or values not finite
    └── RecordMismatch         a sound record of something else: another key
"""


class CacheError(Exception):
    """Root of the tree."""


class StoreError(CacheError):
    """See the tree."""


class StoreUrlError(StoreError, ValueError):
    """See the tree."""


class StoreFull(StoreError):
    """See the tree."""


class StoreUnavailable(StoreError):
    """See the tree."""


class FollowerTooSlow(StoreError):
    """See the tree."""


class RecordError(CacheError):
    """See the tree."""


class RecordTruncated(RecordError):
    """See the tree."""


class RecordCorrupt(RecordError):
    """See the tree."""


class RecordMismatch(RecordError):
    """See the tree."""
