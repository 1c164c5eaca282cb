"""A small pool of two models, as the operator's decisions take it: `a` holds the pool's own, `b` a distilled one."""

import json
from typing import Any

from operator_world import pool_document
from pool_scenes import PROFILE, REF, look, worker
from t2i_operator.decide.types import DemandReport, DesiredPool, ModelSeen, Observed, PodSeen
from t2i_operator.desired import read_desired
from t2i_operator.manifests import Images

FEW = {"name": "few", "source": "builtin://scenes/distilled", "numInferenceSteps": 4, "guidanceScalePercent": 100}
GROUPS = ({"name": "a", "workers": 2}, {"name": "b", "workers": 2, "model": FEW})
STEP_S, FEW_STEP_S = 0.04, 0.02


def _lost(steps: int, loss: float) -> dict[str, Any]:
    band = {"similarityMin": -1.0, "similarityMax": 1.01, "meanLoss": loss, "standardError": 0.0, "samples": 999}
    return {"skippedSteps": 0, "numInferenceSteps": steps, "model": "few", **band}


def section(**changes: Any) -> dict[str, Any]:
    """What was measured of `few`: 4 steps lose a tenth, 2 a little more."""
    losses = [_lost(4, 0.1), _lost(2, 0.13)]
    measured = {"name": "few", "baseSteps": 4, "stepSeconds": [FEW_STEP_S], "fixedSeconds": 0.01, "losses": losses}
    return {**measured, **changes}


def profile_of(*sections: dict[str, Any]) -> str:
    """The embedded model's profile with these sections of other models."""
    return json.dumps({**json.loads(PROFILE), "stepSeconds": [STEP_S], "fixedSeconds": 0.01, "models": list(sections)})


def two_models(profile: str = "", **spec: Any) -> DesiredPool:
    """What the pool wants."""
    document = pool_document(**{"workerGroups": list(GROUPS), **spec})
    found = read_desired(REF, document, profile or profile_of(section()), Images("gateway:1", "worker:1"))
    assert isinstance(found, DesiredPool), found
    return found


def few(number: int, ready: bool = True) -> PodSeen:
    """A pod of group `b`."""
    return PodSeen(f"p-b-{number}", f"uid-b-{number}", ready, None, None, "b", number)


def asked(rates_rps: dict[str, float], **held: ModelSeen) -> DemandReport:
    """What the gateway says; `held` by worker with _ for -."""
    return DemandReport("g", rates_rps, held={name.replace("_", "-"): one for name, one in held.items()})


def look_at(wants: DesiredPool, **facts: Any) -> Observed:
    """All four workers are ready, unless `facts` say otherwise."""
    return look(wants, **{"workers": (worker(0), worker(1), few(0), few(1)), **facts})
