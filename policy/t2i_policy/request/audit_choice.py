"""Which images may be audited, and what was promised for them.

An audit compares an approximated image with the exact one of its request. So it needs a level that is not exact, and a
loss that the profile promises for it. Left out are images that started from the latents of their own prompt and seed:
they are the exact ones. Diversity is no part of what an audit can see, so it is no part of the promise either.
"""

from dataclasses import dataclass

from t2i_policy.corrections import NO_CORRECTIONS
from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile
from t2i_policy.request.decide import Decided, Rules
from t2i_policy.request.options import BOUND_Z, Limits, Neighbourhood


@dataclass(frozen=True, slots=True)
class AuditPromise:
    """`similarity` None: the level needs no latent. `promised_loss` has corrections in it, `profile_loss` none."""

    level: Level
    similarity: float | None
    promised_loss: float
    profile_loss: float


def audit_promise(decided: Decided, limits: Limits, rules: Rules) -> AuditPromise | None:
    """What an audit of this image is held against; None: it is not audited."""
    level, near = decided.served.level, decided.near
    if level == rules.ladder.exact or limits.fixed_steps is not None or not limits.measured:
        return None
    if level.needs_latent and near.same_image:
        return None
    promised = _bound(rules.profile, level, near)
    profile_loss = _bound(rules.profile.corrected(NO_CORRECTIONS), level, near)
    if promised is None or profile_loss is None:
        return None
    return AuditPromise(
        level, near.similarity if level.needs_latent else None, min(1.0, promised), min(1.0, profile_loss)
    )


def _bound(profile: LevelProfile, level: Level, near: Neighbourhood) -> float | None:
    return profile.expected_loss(level, near.similarity, BOUND_Z, near.prompt, near.words_agree)
