"""A pool of two models before workers that a test plays at the wire: its own, and one of four steps."""

from dataclasses import replace
from pathlib import Path

from failing_workers import FailingWorker
from t2i_policy.level import Level
from t2i_policy.model_section import ModelSection
from t2i_policy.profile import BandLoss
from t2i_policy.profile_document import render_profile
from t2i_testing_kit.serving import make_profile
from t2ictl.local_pool import LocalOptions

TURBO = Level(0, 4, model="turbo")
HARMLESS, SOME = 0.005, 0.05  # what the small model loses
POOL = """
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {{name: two}}
spec:
  model: {{source: "builtin://scenes", numInferenceSteps: 20, guidanceScalePercent: 200, width: 48, height: 48,
          precision: fp32, adapters: [{{name: own-style, source: "hf://a/b"}}]}}
  levels: [{{skippedSteps: 0}}, {{skippedSteps: 10}}, {{model: turbo, numInferenceSteps: 4}}]
  workerGroups:
  - {{name: large, workers: 1, engine: simulated}}
  - name: small
    workers: 1
    engine: simulated
    model: {{name: turbo, source: "hf://a/turbo", numInferenceSteps: 4, guidanceScalePercent: 100,
            adapters: [{{name: turbo-style, source: "hf://a/c"}}]}}
  mix: {{mode: Auto, moves: {moves}}}
  slo: {{latencyMilliseconds: 30000, minQualityPercent: 80}}
  gateway: {{replicas: 1, maxQueuedRequests: 64}}
"""


def write_two_models(folder: Path, loss: float = HARMLESS, moves: str = "None") -> LocalOptions:
    """Its document and its profile, by which the small model loses so much of every prompt."""
    (folder / "pool.yaml").write_text(POOL.format(moves=moves))
    section = ModelSection("turbo", 4, (0.001,) * 4, 0.0, (BandLoss(TURBO, -1.0, 1.01, loss, 0.0, 100),))
    (folder / "profile.json").write_text(render_profile(replace(make_profile((0.001,) * 4), models=(section,))))
    return LocalOptions(folder / "pool.yaml", "127.0.0.1:0", folder, folder / "profile.json", models_dir=folder)


def large(**asked: float) -> FailingWorker:
    """A worker of the pool's own model that draws whatever comes."""
    return FailingWorker("large", lambda *_: None, **asked)  # type: ignore[arg-type]


def small(**asked: float) -> FailingWorker:
    """One of the small model."""
    return FailingWorker("small", lambda *_: None, model="turbo", **asked)  # type: ignore[arg-type]
