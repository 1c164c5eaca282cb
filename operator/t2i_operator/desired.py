"""From a pool's document to what it wants: parsed, checked and rendered, or the problem with it.

Most mistakes never get here, the API server refuses them. A problem stops nothing that runs: children stay as they are
until the spec can be carried out again.
"""

import functools
from collections.abc import Mapping
from typing import Any

from t2i_api.parse import PoolError, read_pool
from t2i_operator.decide.types import DesiredPool, Problem
from t2i_operator.errors import TemplateInvalid
from t2i_operator.manifests import Images, Inputs, render_children
from t2i_operator.manifests.auditor import audit_basis
from t2i_operator.manifests.child import PoolRef
from t2i_policy.level import Ladder
from t2i_policy.planning.classes import ClassTable, build_classes
from t2i_policy.profile import LevelProfile, ModelUnmeasured, ProfileError
from t2i_policy.profile_document import parse_profile

INVALID_SPEC = "InvalidSpec"
PROFILE_MISSING = "ProfileMissing"
PROFILE_INVALID = "ProfileInvalid"
MODEL_NOT_MEASURED = "ModelNotMeasured"
KEPT_PROFILES = 128  # pools of one model share theirs


def read_desired(
    ref: PoolRef, document: Mapping[str, Any], profile: str | Problem, images: Images
) -> DesiredPool | Problem:
    """`profile` is the JSON text, or why there is none."""
    try:
        spec = read_pool(document).spec
    except PoolError as error:
        return Problem(INVALID_SPEC, str(error))
    if isinstance(profile, Problem):
        return profile
    try:
        parsed = _parse(profile)
    except ProfileError as error:
        return Problem(PROFILE_INVALID, f"profileRef: {error}")
    unmeasured = sorted(spec.models.keys() - {section.name for section in parsed.models})
    if unmeasured:
        return Problem(
            MODEL_NOT_MEASURED,
            f"workerGroups: the profile has no section for model {unmeasured[0]!r}, so nobody knows what it takes and "
            f"loses; add one with t2ictl profile --beside {unmeasured[0]}=SAMPLES and name that profile in profileRef",
        )
    try:
        chosen = spec.choose_ladder(parsed)
    except ModelUnmeasured as error:
        return Problem(MODEL_NOT_MEASURED, f"profileRef: {error}")
    except ProfileError as error:
        return Problem(PROFILE_INVALID, f"profileRef: {error}")
    spec = spec.filled_in(chosen)  # gateways, workers and plans read the levels from here
    classes = _classes(profile, spec.ladder, spec.slo.max_loss, spec.slo.harmless_loss)
    inputs = Inputs(ref, spec, profile, images)
    basis = audit_basis(inputs, spec.quality) if spec.quality is not None else ""
    try:
        return DesiredPool(spec, parsed, classes, render_children(inputs), chosen, basis)
    except TemplateInvalid as error:
        return Problem(INVALID_SPEC, str(error))


@functools.lru_cache(KEPT_PROFILES)
def _parse(profile: str) -> LevelProfile:
    return parse_profile(profile)


@functools.lru_cache(KEPT_PROFILES)
def _classes(profile: str, ladder: Ladder, max_loss: float, harmless_loss: float) -> ClassTable:
    return build_classes(ladder, _parse(profile), max_loss, harmless_loss)
