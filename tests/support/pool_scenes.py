"""One look at a small pool, as the operator's decisions take it: built from few words, no API server."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from operator_world import pool_document
from t2i_operator.clock import Instant
from t2i_operator.decide.children import key_of
from t2i_operator.decide.types import (
    ChildKey,
    ChildSeen,
    DemandReport,
    DesiredPool,
    MeasuredProfile,
    Observed,
    PodSeen,
    Problem,
    Trouble,
)
from t2i_operator.desired import read_desired
from t2i_operator.manifests import Images
from t2i_operator.manifests.child import PoolRef

PROFILE = (Path(__file__).parents[2] / "scenes" / "t2i_scenes" / "model" / "profile.json").read_text()
REF = PoolRef("ns", "p", "uid-p", "100")
NOW = Instant(1_800_000_000.0)
MEASURED = {("a", ""): MeasuredProfile((0.04,), 0.01)}  # 12 steps: about 2 images/s at full steps


@cache
def _wanted(key: str) -> DesiredPool:
    found = read_desired(REF, pool_document(**json.loads(key)), PROFILE, Images("gateway:1", "worker:1"))
    assert isinstance(found, DesiredPool), found
    return found


def wanted(**spec: Any) -> DesiredPool:
    """What a valid spec wants."""
    return _wanted(json.dumps(spec, sort_keys=True))


def problem(**spec: Any) -> Problem:
    """What is wrong with a spec."""
    found = read_desired(REF, pool_document(**spec), PROFILE, Images("gateway:1", "worker:1"))
    assert isinstance(found, Problem), found
    return found


def worker(number: int, ready: bool = True, trouble: Trouble | None = None, level: str | None = None) -> PodSeen:
    """A pod of group `a`."""
    return PodSeen(f"p-a-{number}", f"uid-{number}", ready, trouble, level, "a", number)


def gateway(ready: bool = True, trouble: Trouble | None = None) -> PodSeen:
    """The gateway's pod."""
    return PodSeen("p-gateway-x", "uid-g", ready, trouble)


def there(wants: DesiredPool, **changes: Mapping[str, Any]) -> dict[ChildKey, ChildSeen]:
    """All children as they are wanted, rolled out; `changes` replaces parts by kind, e.g. StatefulSet={...}."""
    found = {}
    for number, manifest in enumerate(wants.children):
        live = {**manifest, "metadata": {**manifest["metadata"], "uid": f"uid-c{number}", "generation": 1}}
        if "replicas" in manifest.get("spec", {}):
            count = manifest["spec"]["replicas"]
            live["status"] = {"observedGeneration": 1, "replicas": count, "updatedReplicas": count}
        live |= changes.get(manifest["kind"], {})
        found[key_of(manifest)] = ChildSeen(live, f"uid-c{number}", REF.uid)
    return found


def report(exact_rps: float, name: str = "g") -> DemandReport:
    """Demand of prompts that may not bend, and of others, in equal parts."""
    rates = {"exact": exact_rps / 2, "none": exact_rps / 2} if exact_rps else {}
    return DemandReport(name, rates, measured=MEASURED)


def look(wants: DesiredPool | None = None, **facts: Any) -> Observed:
    """A ready pool of two workers and a gateway; `facts` replaces parts of it."""
    wants = wants or wanted()
    usual: dict[str, Any] = {
        "generation": 1,
        "status": {},
        "children": there(wants),
        "workers": (worker(0), worker(1)),
        "gateways": (gateway(),),
    }
    return Observed(ref=REF, **{**usual, **facts})
