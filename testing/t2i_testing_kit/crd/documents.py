"""Pool documents for tests, and how they reach a real API server: always strict, as kubectl and helm ask for."""

import copy
from collections.abc import Mapping
from typing import Any

from t2i_api.parse import PoolError, read_pool
from t2i_testing_kit.kube.server import Answer, KubeServer

Document = dict[str, Any]
API = "/apis/t2iserving.dev/v1alpha1"
REMOVED = object()
STEPS = 20
LADDER = ({"skippedSteps": 0}, {"skippedSteps": 10}, {"numInferenceSteps": 10})


def pool_document(name: str = "demo") -> Document:
    """A small valid pool: 20 steps, two groups of 3 and 1 workers, three levels."""
    return {
        "apiVersion": "t2iserving.dev/v1alpha1",
        "kind": "T2IServingPool",
        "metadata": {"name": name},
        "spec": {
            "model": {"source": "builtin://scenes", "numInferenceSteps": STEPS, "width": 48, "height": 48},
            "levels": [dict(level) for level in LADDER],
            "workerGroups": [{"name": "gpu", "workers": 3}, {"name": "cpu", "workers": 1}],
        },
    }


def changed(document: Document, changes: Mapping[str, object]) -> Document:
    """A copy with values at paths like `spec.workerGroups.0.name` put in or, with REMOVED, taken out."""
    result = copy.deepcopy(document)
    for path, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        node: Any = result
        for part in parents:
            node = node.setdefault(part, {}) if isinstance(node, dict) else node[part]
        if value is REMOVED:
            node.pop(last, None) if isinstance(node, dict) else node.pop(last)
        elif isinstance(node, list) and last == len(node):
            node.append(copy.deepcopy(value))
        else:
            node[last] = copy.deepcopy(value)
    return result


def refusal_by_us(document: Document) -> str | None:
    """What our parser says against the document; None = nothing."""
    try:
        read_pool(document)
    except PoolError as error:
        return str(error)
    return None


class Pools:
    """The pools of one namespace on a real API server."""

    def __init__(self, server: KubeServer, namespace: str) -> None:
        self.server = server
        self.path = f"{API}/namespaces/{namespace}/t2iservingpools"

    def try_create(self, document: Document) -> Answer:
        """Everything that a create does but the storing."""
        return self.server.call("POST", f"{self.path}?dryRun=All&fieldValidation=Strict", document)

    def create(self, document: Document) -> Document:
        """Create it; the stored object."""
        answer = self.server.call("POST", f"{self.path}?fieldValidation=Strict", document)
        assert answer.ok, answer.message
        return answer.body

    def get(self, name: str) -> Document:
        """The stored object."""
        answer = self.server.call("GET", f"{self.path}/{name}")
        assert answer.ok, answer.message
        return answer.body

    def replace(self, document: Document, dry_run: bool = False) -> Answer:
        """PUT it over whatever is there."""
        query = "fieldValidation=Strict" + ("&dryRun=All" if dry_run else "")
        name = document["metadata"]["name"]
        return self.server.call("PUT", f"{self.path}/{name}?{query}", document)

    def patch(self, name: str, changes: Document, subresource: str = "") -> Answer:
        """A merge patch of the object, or of its `/status`."""
        path = f"{self.path}/{name}{subresource}?fieldValidation=Strict"
        return self.server.call("PATCH", path, changes, "application/merge-patch+json")

    def delete(self, name: str) -> None:
        """Delete it."""
        answer = self.server.call("DELETE", f"{self.path}/{name}")
        assert answer.ok, answer.message
