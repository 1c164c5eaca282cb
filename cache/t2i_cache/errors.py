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
    """Raised when the store cannot serve; callers go on without the latent."""


class StoreUrlError(StoreError, ValueError):
    """Raised when a URL names no store that we have."""


class StoreFull(StoreError):
    """Raised when there is no space left."""


class StoreUnavailable(StoreError):
    """Raised when I/O fails, or the store is not what it should be."""


class FollowerTooSlow(StoreError):
    """Raised when whoever follows the changes does not keep up; it must begin anew."""


class RecordError(CacheError):
    """Raised for bytes that are not the latent they should be."""


class RecordTruncated(RecordError):
    """Raised when a record is shorter than its header says."""


class RecordCorrupt(RecordError):
    """Raised when checksum, magic or header is wrong, or values are not finite."""


class RecordMismatch(RecordError):
    """Raised for a sound record of another key."""
