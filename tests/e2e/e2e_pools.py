"""Pools under test: in a namespace of their own that admits restricted pods only, with ways to look into them."""

import asyncio
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from e2e_cluster import Cluster, ClusterError, Document, is_ready, restarts, until
from e2e_forwarding import forwarded

ROOT = Path(__file__).parents[2]
PROFILE = ROOT / "scenes" / "t2i_scenes" / "model" / "profile.json"
READY_WITHIN_S = 300.0
GATEWAY_PORT, HTTP_PORT = 50051, 8080
SYSTEM = "t2i-system"  # the namespace of the release
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


def slowed_profile(factor: float, batch: int = 4) -> str:
    """The embedded model's profile, so many times slower, for workers that simulate it: what a larger one would be."""
    profile = json.loads(PROFILE.read_text())
    first = profile["stepSeconds"][0]
    profile["stepSeconds"] = [first * factor * (1 + 0.5 * number) for number in range(batch)]
    profile["fixedSeconds"] *= factor
    return json.dumps(profile)


def pool_document(name: str, **spec: Any) -> Document:
    """examples/pool.yaml's ladder, ready to be changed."""
    levels: list[Document] = [{"skippedSteps": 0}, *({"numInferenceSteps": steps} for steps in (8, 6, 4))]
    model = {
        "source": "builtin://scenes",
        "numInferenceSteps": 12,
        "guidanceScalePercent": 200,
        "width": 48,
        "height": 48,
        "precision": "fp32",
    }
    usual: Document = {
        "model": model,
        "levels": levels,
        "slo": {"latencyMilliseconds": 6000, "minQualityPercent": 85},
        "cache": {"scope": "Tenant", "capacityMebibytes": 64},
        "gateway": {"replicas": 2, "maxQueuedRequests": 64},
    }
    return {
        "apiVersion": "t2iserving.dev/v1alpha1",
        "kind": "T2IServingPool",
        "metadata": {"name": name},
        "spec": {**usual, **spec},
    }


def simulated_group(workers: int) -> Document:
    """Workers that cost no processor."""
    resources = {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}
    return {"name": "sim", "workers": workers, "engine": "simulated", "template": {"resources": resources}}


@dataclass(frozen=True)
class RunningPool:
    """A pool in the cluster."""

    cluster: Cluster
    namespace: str
    name: str
    forwards: ExitStack

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> float:
        """Until every pod is there; the seconds."""
        return until(f"pool {self.name} is Ready: {self.why()}", self._is_ready, within_s)

    def _is_ready(self) -> bool:
        return self.cluster.condition(self.name, self.namespace, "Ready").get("status") == "True"

    def why(self) -> str:
        """What its Ready condition says."""
        condition = self.cluster.condition(self.name, self.namespace, "Ready")
        return f"{condition.get('reason')}: {condition.get('message')}"

    def pods(self, component: str) -> list[Document]:
        """worker or gateway pods."""
        return self.cluster.pods(self.namespace, component)

    def ready(self, component: str) -> int:
        """How many are Ready."""
        return sum(is_ready(pod) for pod in self.pods(component))

    def restarts(self) -> int:
        """Of all its pods."""
        return restarts(self.cluster.pods(self.namespace))

    @functools.cached_property
    def service_address(self) -> str:
        """Of gRPC at the gateways' Service."""
        return self._reached(GATEWAY_PORT)

    @functools.cached_property
    def http_address(self) -> str:
        """Of HTTP at the gateways' Service."""
        return self._reached(HTTP_PORT)

    def _reached(self, port: int) -> str:
        """The Service itself on a local node, a forwarded one elsewhere."""
        name = f"{self.name}-gateway"
        if self.cluster.local is not None:
            service = self.cluster.get(f"service/{name}", f"--namespace={self.namespace}")
            return f"{service['spec']['clusterIP']}:{port}"
        kubectl, kubeconfig = self.cluster.programs["kubectl"], self.cluster.kubeconfig
        return self.forwards.enter_context(forwarded(kubectl, kubeconfig, self.namespace, name, port))

    def change(self, spec: Document) -> None:
        """A merge patch of the spec."""
        self.cluster.patch(f"t2ip/{self.name}", self.namespace, {"spec": spec})

    def status(self) -> Document:
        """As the API server says."""
        found: Document = self.cluster.get(f"t2ip/{self.name}", f"--namespace={self.namespace}").get("status", {})
        return found

    def metrics(self, pod: str) -> dict[tuple[str, str], float]:
        """`(name, labels)` -> value, of one pod."""
        return self.cluster.metrics(self.namespace, pod)

    def metric(self, component: str, name: str, labels: str = "") -> float:
        """A metric summed over pods and over label sets that contain `labels`."""
        total = 0.0
        for pod in self.pods(component):
            found = self.metrics(pod["metadata"]["name"])
            total += sum(value for (one, with_labels), value in found.items() if one == name and labels in with_labels)
        return total


@contextmanager
def namespace_of(cluster: Cluster, name: str) -> Iterator[str]:
    """A namespace that admits restricted pods only; gone afterwards."""
    with suppress(ClusterError):
        cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, RESTRICTED, "--overwrite")
    try:
        yield name
    finally:
        cluster.kubectl("delete", "namespace", name, "--timeout=90s", limit_s=120)


@contextmanager
def running_pool(cluster: Cluster, namespace: str, document: Document, profile: str = "") -> Iterator[RunningPool]:
    """A pool that is Ready; deleted afterwards, with everything it had."""
    name = document["metadata"]["name"]
    if profile:
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-measured"}}
        cluster.apply({**config, "data": {"profile.json": profile}}, namespace)
        document["spec"]["profileRef"] = {"name": f"{name}-measured"}
    cluster.apply(document, namespace)
    try:
        with ExitStack() as forwards:
            pool = RunningPool(cluster, namespace, name, forwards)
            pool.wait_ready()
            yield pool
    finally:
        cluster.kubectl("delete", f"t2ip/{name}", f"--namespace={namespace}", "--wait=false")
        for pod in cluster.pods(namespace):  # no need to wait for drains of pods nobody asks any more
            with suppress(ClusterError):
                cluster.kubectl(
                    "delete", f"pod/{pod['metadata']['name']}", f"--namespace={namespace}", "--grace-period=1"
                )
        until(f"pods of {name} are gone", lambda: not cluster.pods(namespace), 90)


async def follow_mix(
    pool: RunningPool, now_s: Callable[[], float], seen: list[tuple[float, str]], stop: asyncio.Event
) -> None:
    """The mix as the pool's status says, every two seconds."""
    while not stop.is_set():
        seen.append((now_s(), str((await asyncio.to_thread(pool.status)).get("mix", ""))))
        await asyncio.sleep(2)


def changes_of(seen: Sequence[tuple[float, str]]) -> list[tuple[float, str]]:
    """The first mix and each other one, with when it was first seen."""
    changed = [now for before, now in itertools.pairwise(seen) if now[1] != before[1]]
    return [(round(at_s, 1), mix) for at_s, mix in (seen[0], *changed)]
