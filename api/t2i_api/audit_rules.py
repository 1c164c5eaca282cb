"""The rules of `spec.quality` that span fields. Whether a profile that the owner measured has the same judge, only the
operator can tell, as it reads the profile: see the condition QualityKept.
"""

from t2i_api.audits import SCENES
from t2i_api.names import AUDITOR
from t2i_api.pool import PoolSpec
from t2i_api.rule import PoolRule

EMBEDDED = "builtin://scenes"

AUDITS = (
    PoolRule[PoolSpec](
        holds=lambda spec: spec.quality is None or spec.quality.judge != SCENES or spec.model.source == EMBEDDED,
        cel=f"!has(self.quality) || self.quality.judge != '{SCENES}' || self.model.source == '{EMBEDDED}'",
        message=f"quality.judge {SCENES} scores images of {EMBEDDED} alone: set the judge that measured your profile, "
        "such as pickscore",
        field=".quality.judge",
    ),
    PoolRule[PoolSpec](
        holds=lambda spec: (
            spec.quality is None
            or spec.profile_ref is not None
            or spec.model.source != EMBEDDED
            or spec.quality.judge == SCENES
        ),
        cel=f"!has(self.quality) || has(self.profileRef) || self.model.source != '{EMBEDDED}' || "
        f"self.quality.judge == '{SCENES}'",
        message=f"the profile that comes with {EMBEDDED} was measured by the judge {SCENES}, and losses of two judges "
        f"do not compare: set quality.judge to {SCENES}, or measure with yours and set profileRef",
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
