"""A small pool, as a document that an operator can bring up."""

from typing import Any

Document = dict[str, Any]


def pool_document(name: str = "p", **spec: Any) -> Document:
    """A small valid pool of the builtin model; `spec` replaces parts of it."""
    base: Document = {
        "model": {
            "source": "builtin://scenes",
            "numInferenceSteps": 12,
            "guidanceScalePercent": 200,
            "width": 48,
            "height": 48,
            "precision": "fp32",
        },
        "levels": [{"skippedSteps": 0}, {"skippedSteps": 6}, {"numInferenceSteps": 6}],
        "workerGroups": [{"name": "a", "workers": 2}],
        "slo": {"latencyMilliseconds": 1500, "minQualityPercent": 85},
        "gateway": {"replicas": 1},
    }
    document = {"apiVersion": "t2iserving.dev/v1alpha1", "kind": "T2IServingPool", "metadata": {"name": name}}
    return {**document, "spec": {**base, **spec}}
