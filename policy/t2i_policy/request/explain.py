"""The outlook: every level of the ladder for one prompt, with why it may or may not be served. For `Explain`.

The reasons come from the functions by which `options.eligible_options` chooses.
"""

from dataclasses import dataclass, replace

from t2i_policy.level import Ladder, Level
from t2i_policy.profile import LevelProfile
from t2i_policy.request.options import (
    IneligibleReason,
    Limits,
    Neighbourhood,
    loss_for,
    refused_for_loss,
    refused_unmeasured,
)


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
    fixed = Level(0, limits.fixed_steps, model=limits.model or "")
    others = [replace(entry, reason=IneligibleReason.SCHEDULE_REQUESTED) for entry in entries if entry.level != fixed]
    return (LevelOutlook(fixed, 0.0, IneligibleReason.NONE), *others)


def _assess(level: Level, ladder: Ladder, profile: LevelProfile, near: Neighbourhood, limits: Limits) -> LevelOutlook:
    if level == ladder.exact:
        return LevelOutlook(level, 0.0, IneligibleReason.MODEL_REQUESTED if limits.model else IneligibleReason.NONE)
    if limits.model and not limits.measured and level == ladder.full_schedule(limits.model):
        return LevelOutlook(level, None, IneligibleReason.NONE)
    loss = loss_for(level, profile, near)
    reason = refused_unmeasured(level, near, limits) or refused_for_loss(loss, limits)
    return LevelOutlook(level, loss, reason, _explain_loss(level, profile, near))


def _explain_loss(level: Level, profile: LevelProfile, near: Neighbourhood) -> str:
    if near.same_image and level.needs_latent:
        return "this prompt ran with this seed: its latents draw the same image"
    told = profile.explain(level, near.similarity, near.prompt, near.words_agree)
    lost = profile.diversity_lost(level, near.similarity) if near.another_take else None
    if lost is None:
        return told
    less = f"{100 * lost:.0f}%" if lost > 0 else "not"
    return f"{told}; asked before with another seed, and images of two seeds are {less} less different"
