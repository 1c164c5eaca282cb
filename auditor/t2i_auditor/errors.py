"""Errors of the auditor.

AuditorError
├── AuditorUnusable     it cannot start with this pool, profile or judge
├── PairInvalid         fields of a request cannot be used; names every one that is wrong
├── AuditorBusy         too many pairs at once
└── NotJudged           the judge is not ready, or gave no score for a pair
"""

from t2i_runtime.errors import FieldsInvalid


class AuditorError(Exception):
    """Its message is safe to show to gateways and the operator."""


class AuditorUnusable(AuditorError):
    """Raised when it cannot start; names the field and the next step."""


class PairInvalid(FieldsInvalid, AuditorError):
    """Raised when a pair cannot be judged as it is."""


class AuditorBusy(AuditorError):
    """Raised when too many pairs are judged at once; the pair is to be dropped."""


class NotJudged(AuditorError):
    """Raised when there is no score for a pair; it is to be dropped."""
