"""Whether the quality that was promised is the quality that was served, by audits (`spec.quality`).

An audit draws the exact image of a request that was served at a cheaper level. A judge scores both. What counts is the
upper end of the measured quality's interval. The promise is broken when even that is more than TOLERANCE below what was
promised:

    measured - promised + Z * standard error < -TOLERANCE
"""

from dataclasses import dataclass
from enum import StrEnum

TOLERANCE = 0.01  # of exact: one point of quality
Z = 1.96  # a two-sided interval of 95 %
FEWEST_AUDITS = 30  # below, a standard error is itself too uncertain


class PromiseReason(StrEnum):
    """Why a promise counts as kept, as broken or as unknown."""

    KEPT = "PromiseKept"
    BROKEN = "BelowPromise"
    TOO_FEW = "TooFewAudits"


@dataclass(frozen=True, slots=True)
class AuditedQuality:
    """Qualities as shares of exact; `standard_error` is of their difference."""

    num_audits: int
    promised: float
    measured: float
    standard_error: float

    @property
    def reach(self) -> float:
        """Half of the interval's width."""
        return Z * self.standard_error


@dataclass(frozen=True, slots=True)
class PromiseVerdict:
    """`holds` None: unknown as yet. `sentence` is for people, with the interval."""

    holds: bool | None
    reason: PromiseReason
    sentence: str


def judge_promise(audited: AuditedQuality) -> PromiseVerdict:
    """By the audits so far."""
    told = (
        f"{100 * audited.measured:.1f}% ± {100 * audited.reach:.1f} measured in {audited.num_audits} audits, "
        f"{100 * audited.promised:.1f}% promised"
    )
    if audited.num_audits < FEWEST_AUDITS:
        return PromiseVerdict(None, PromiseReason.TOO_FEW, f"{audited.num_audits} of {FEWEST_AUDITS} audits are made")
    if audited.measured - audited.promised + audited.reach < -TOLERANCE:
        return PromiseVerdict(False, PromiseReason.BROKEN, told)
    return PromiseVerdict(True, PromiseReason.KEPT, told)
