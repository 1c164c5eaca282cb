"""The outlook: every level of the ladder for one prompt, with why it may or may not be served. For `Explain`.

Follows the same rules as `wanted.eligible_options` and must never disagree with it (a test holds them together).
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from t2i_policy.level import Ladder, Level
from t2i_policy.profile import LevelProfile
from t2i_policy.request.options import Limits, Neighbourhood, loss_for


class IneligibleReason(StrEnum):
    """Why a level may not be served to this request; NONE if it may."""

    NONE = ""
    EXACT_REQUESTED = "ExactRequested"
    SCHEDULE_REQUESTED = "ScheduleRequested"
    NO_NEIGHBOUR = "NoNeighbour"
    LATENT_NOT_STORED = "LatentNotStored"
    ABOVE_REQUEST_CAP = "AboveRequestCap"
    NOT_MEASURED = "NotMeasured"
    BELOW_QUALITY_FLOOR = "BelowQualityFloor"


@dataclass(frozen=True, slots=True)
class LevelOutlook:
    """One level: the bound on its loss (fraction of exact; None = unknown) and whether and why it is ineligible.

    `explanation` says what the loss is made of.
    """

    level: Level
    expected_loss: float | None
    reason: IneligibleReason
    explanation: str = ""

    @property
    def eligible(self) -> bool:
        """True if the request may be served at this level."""
        return self.reason is IneligibleReason.NONE


def outlook(ladder: Ladder, profile: LevelProfile, near: Neighbourhood, limits: Limits) -> tuple[LevelOutlook, ...]:
    """One entry a level, in the ladder's order; a schedule that the request fixed comes first."""
    entries = [_assess(level, ladder, profile, near, limits) for level in ladder.levels]
    if limits.fixed_steps is None:
        return tuple(entries)
    fixed = Level(0, limits.fixed_steps)
    others = [replace(entry, reason=IneligibleReason.SCHEDULE_REQUESTED) for entry in entries if entry.level != fixed]
    return (LevelOutlook(fixed, 0.0, IneligibleReason.NONE), *others)


def _assess(level: Level, ladder: Ladder, profile: LevelProfile, near: Neighbourhood, limits: Limits) -> LevelOutlook:
    if level == ladder.exact:
        return LevelOutlook(level, 0.0, IneligibleReason.NONE)
    loss = loss_for(level, profile, near)
    return LevelOutlook(level, loss, _why_not(level, loss, near, limits), _explain_loss(level, profile, near))


def _explain_loss(level: Level, profile: LevelProfile, near: Neighbourhood) -> str:
    if near.same_image and level.needs_latent:
        return "this prompt ran with this seed: its latents draw the same image"
    told = profile.explain(level, near.similarity, near.prompt)
    lost = profile.diversity_lost(level, near.similarity) if near.another_take else None
    if lost is None:
        return told
    return f"{told}; asked before with another seed, and images of two seeds are {100 * lost:.0f}% less different"


def _why_not(level: Level, loss: float | None, near: Neighbourhood, limits: Limits) -> IneligibleReason:
    if limits.exact:
        return IneligibleReason.EXACT_REQUESTED
    if level.needs_latent:
        if near.similarity is None:
            return IneligibleReason.NO_NEIGHBOUR
        if level.skipped_steps not in near.stored_steps:
            return IneligibleReason.LATENT_NOT_STORED
        if limits.max_skipped_steps is not None and level.skipped_steps > limits.max_skipped_steps:
            return IneligibleReason.ABOVE_REQUEST_CAP
    if loss is None:
        return IneligibleReason.NOT_MEASURED
    return IneligibleReason.BELOW_QUALITY_FLOOR if loss > limits.max_loss else IneligibleReason.NONE
