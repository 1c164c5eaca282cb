"""The rules of `spec.quality` that span fields. They cannot say whether a profile that the owner measured has the same
judge. Only the operator can tell, as it reads the profile: see the condition QualityKept.
"""

from t2i_api.audits import SCENES
from t2i_api.names import AUDITOR
from t2i_api.pool import PoolSpec
from t2i_api.rule import PoolRule

EMBEDDED = "builtin://"  # each of these models draws scenes, and comes with a profile by their scorer

AUDITS = (
    PoolRule[PoolSpec](
        holds=lambda spec: (
            spec.quality is None or spec.quality.judge != SCENES or spec.model.source.startswith(EMBEDDED)
        ),
        cel=f"!has(self.quality) || self.quality.judge != '{SCENES}' || self.model.source.startsWith('{EMBEDDED}')",
        message=f"quality.judge {SCENES} scores images of {EMBEDDED} models alone: set the judge that measured your "
        "profile, such as pickscore",
        field=".quality.judge",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: (
            spec.quality is None
            or spec.profile_ref is not None
            or not spec.model.source.startswith(EMBEDDED)
            or spec.quality.judge == SCENES
        ),
        cel=f"!has(self.quality) || has(self.profileRef) || !self.model.source.startsWith('{EMBEDDED}') || "
        f"self.quality.judge == '{SCENES}'",
        message=f"the profile that comes with a {EMBEDDED} model was measured by the judge {SCENES}, and losses of two "
        f"judges do not compare: set quality.judge to {SCENES}, or measure with yours and set profileRef",
        field=".quality.judge",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: spec.quality is None or all(group.name != AUDITOR for group in spec.worker_groups),
        cel=f"!has(self.quality) || self.workerGroups.all(g, g.name != '{AUDITOR}')",
        message=f"a worker group must not be called {AUDITOR} beside quality, as its auditor has that name: add a "
        "group of another name and remove this one",
        field=".workerGroups",
    ),
)
