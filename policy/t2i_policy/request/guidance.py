"""What a request's guidance means in a pool of several models.

A guidance scale is about one model: a distilled one is trained to draw without, at scale 1. So a number that is not the
pool's own default stays with the pool's own model. Beside a demand it is about the demanded model; where it is not that
model's default, nobody measured what it draws. A model that draws without guidance ignores negative prompts, so they
stay with the pool's own model too. In a pool of one model all of this changes nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from t2i_policy.level import UNGUIDED_COST
from t2i_policy.request.options import Limits

UNGUIDED_SCALE = 1.0  # up to here a step runs without its unprompted rows
Scales = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class AskedGuidance:
    """`scale` None: the model's own. `heeds_negative`: something else than the scale makes use of a negative prompt."""

    scale: float | None = None
    negative: bool = False
    heeds_negative: bool = False


def heed_guidance(limits: Limits, asked: AskedGuidance, scales: Scales) -> Limits:
    """The limits of a request that asks for this. `scales`: each model's own by name, "" being the pool's own."""
    if len(scales) == 1:
        return limits
    if limits.model is None:
        ignored = asked.negative and any(_is_unguided(scale) for model, scale in scales.items() if model)
        return replace(limits, own_alone=True) if ignored or _differs(asked.scale, scales[""]) else limits
    if limits.model and _differs(asked.scale, scales[limits.model]):
        return replace(limits, measured=False)
    return limits


def ignores_negative(limits: Limits, asked: AskedGuidance, scales: Scales) -> bool:
    """Whether another model must draw it that makes no use of its negative prompt."""
    if not limits.model or not asked.negative or asked.heeds_negative:
        return False
    return _is_unguided(scales[limits.model] if asked.scale is None else asked.scale)


def guidance_cost(limits: Limits, asked: AskedGuidance, scales: Scales) -> float:
    """What a step costs, in steps of the model as it was measured: guidance doubles the rows of an unguided one."""
    if not limits.model or asked.scale is None or _is_unguided(asked.scale):
        return 1.0
    return 1 / UNGUIDED_COST if _is_unguided(scales[limits.model]) else 1.0


def _is_unguided(scale: float) -> bool:
    return scale <= UNGUIDED_SCALE


def _differs(scale: float | None, own: float) -> bool:
    """Numbers of a request were rounded to 32 bits."""
    return scale is not None and not math.isclose(scale, own, rel_tol=1e-6)
