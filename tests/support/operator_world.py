"""An operator at work on a real API server, and the parts of a cluster that a test plays: kubelet and controllers.

`World` speaks to the server as the administrator, from threads, so that the operator's event loop is never held up.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from t2i_operator.server import Operator, build_operator
from t2i_operator.settings import OperatorSettings, parse_arguments
from t2i_testing_kit.kube.server import KubeServer
from t2i_testing_kit.pools import pool_document as pool_document

POOLS = "/apis/t2iserving.dev/v1alpha1/namespaces/{}/t2iservingpools"
MERGE = "application/merge-patch+json"
UNSCHEDULABLE = {
    "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}
    ]
}
LIMIT_S = 120.0  # pauses between tries grow to a minute
Document = dict[str, Any]
CHILD_PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "Ingress": "/apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    "Service": "/api/v1/namespaces/{}/services",
    "StatefulSet": "/apis/apps/v1/namespaces/{}/statefulsets",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "PodDisruptionBudget": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
}


class World:
    """One namespace. Every method that waits gives up after LIMIT_S and says what it saw last."""

    def __init__(self, server: KubeServer, namespace: str) -> None:
        self.server = server
        self.namespace = namespace

    async def call(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Document:
        """One request that must succeed."""
        answer = await asyncio.to_thread(self.server.call, method, path, body, kind)
        assert answer.ok, f"{method} {path}: {answer.status} {answer.message}"
        return answer.body

    async def find(self, path: str) -> Document | None:
        """An object, None if there is none."""
        answer = await asyncio.to_thread(self.server.call, "GET", path)
        return answer.body if answer.ok else None

    def pools(self, name: str = "") -> str:
        """Path of the pools, or of one."""
        return POOLS.format(self.namespace) + (f"/{name}" if name else "")

    async def create(self, document: Document) -> Document:
        """Create a pool."""
        return await self.call("POST", self.pools(), document)

    async def pool(self, name: str = "p") -> Document:
        """The pool as it is."""
        return await self.call("GET", self.pools(name))

    async def change(self, spec: Document, name: str = "p") -> Document:
        """Merge into a pool's spec."""
        return await self.call("PATCH", self.pools(name), {"spec": spec}, MERGE)

    async def children(self, pool: str = "p") -> dict[str, Document]:
        """`KIND/NAME` -> object, of everything that carries the pool's label."""
        found: dict[str, Document] = {}
        for kind, path in CHILD_PATHS.items():
            listed = await self.call("GET", f"{path.format(self.namespace)}?labelSelector=t2iserving.dev/pool={pool}")
            found |= {f"{kind}/{item['metadata']['name']}": item for item in listed["items"]}
        return found

    async def event_reasons(self) -> set[str]:
        """Of all events of the namespace. They are written after the status that they tell of."""
        listed = await self.call("GET", f"/api/v1/namespaces/{self.namespace}/events")
        return {event["reason"] for event in listed["items"]}

    async def child(self, key: str) -> Document | None:
        """One child by `KIND/NAME`."""
        kind, _, name = key.partition("/")
        return await self.find(f"{CHILD_PATHS[kind].format(self.namespace)}/{name}")

    def child_path(self, key: str) -> str:
        """Its path."""
        kind, _, name = key.partition("/")
        return f"{CHILD_PATHS[kind].format(self.namespace)}/{name}"

    async def pods(self, group: str | None = None) -> dict[str, Document]:
        """Pods by name, of one worker group if named."""
        listed = await self.call("GET", f"/api/v1/namespaces/{self.namespace}/pods")
        pods = {item["metadata"]["name"]: item for item in listed["items"]}
        if group is None:
            return pods
        return {n: pod for n, pod in pods.items() if pod["metadata"]["labels"].get("t2iserving.dev/group") == group}

    async def start_pod(self, child: str, number: int | str, ready: bool = True) -> str:
        """Make a pod from a child's template, as its controller would, with the kubelet's word on it."""
        owner = await self.child(child)
        assert owner is not None
        template = owner["spec"]["template"]
        name = f"{owner['metadata']['name']}-{number}"
        metadata = {"name": name, "labels": dict(template["metadata"]["labels"])}
        await self.call("POST", f"/api/v1/namespaces/{self.namespace}/pods", {
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"],
        })  # fmt: skip
        await self.pod_status(name, ready=ready)
        return name

    async def start_played_pod(self, child: str, host: str, control_port: int) -> None:
        """The pod of a gateway or an auditor, whose control port is a process of the test."""
        owner = await self.child(child)
        assert owner is not None
        template = owner["spec"]["template"]
        container = {"name": "played", "image": "test", "ports": [{"name": "control", "containerPort": control_port}]}
        name = f"{owner['metadata']['name']}-0"
        metadata = {"name": name, **{part: template["metadata"][part] for part in ("labels", "annotations")}}
        await self.call("POST", f"/api/v1/namespaces/{self.namespace}/pods", {
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]},
        })  # fmt: skip
        await self.pod_status(name, ready=True, podIP=host, podIPs=[{"ip": host}])
        await self.rolled_out(child)

    async def publish_worker(self, name: str, address: str, pool: str = "p") -> str:
        """The EndpointSlice of one worker, as its controller would write it; returns its path."""
        host, _, port = address.rpartition(":")
        labels = {"t2iserving.dev/pool": pool, "app.kubernetes.io/component": "worker"}
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"
        await self.call("POST", path, {
            "metadata": {"name": name, "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "grpc", "port": int(port)}],
            "endpoints": [{"addresses": [host]}],
        })  # fmt: skip
        return f"{path}/{name}"

    async def pod_status(self, name: str, ready: bool = False, **status: Any) -> None:
        """What the kubelet would say of a pod."""
        condition = {"type": "Ready", "status": "True" if ready else "False"}
        body = {"status": {"conditions": [condition], **status}}
        await self.call("PATCH", f"/api/v1/namespaces/{self.namespace}/pods/{name}/status", body, MERGE)

    async def delete_pod(self, name: str) -> None:
        """At once."""
        await self.call("DELETE", f"/api/v1/namespaces/{self.namespace}/pods/{name}", {"gracePeriodSeconds": 0})

    async def rolled_out(self, child: str) -> None:
        """The controller's word that a StatefulSet or Deployment is as its spec says."""
        seen = await self.child(child)
        assert seen is not None
        replicas = seen["spec"]["replicas"]
        status = {"observedGeneration": seen["metadata"]["generation"], "replicas": replicas}
        status |= {"updatedReplicas": replicas, "readyReplicas": replicas}
        await self.call("PATCH", f"{self.child_path(child)}/status", {"status": status}, MERGE)

    async def bring_up(self, pool: str = "p") -> None:
        """Play controllers and kubelet until everything that a pool's children ask for is ready."""
        for key, child in (await self.children(pool)).items():
            if key.split("/")[0] not in ("StatefulSet", "Deployment"):
                continue
            there = await self.pods()
            for number in range(child["spec"]["replicas"]):
                if f"{child['metadata']['name']}-{number}" not in there:
                    await self.start_pod(key, number)
            await self.rolled_out(key)

    async def create_ready(self) -> None:
        """A pool that is ready, with every worker labelled."""
        await self.create(pool_document())
        await self.until_condition("Progressing", "True")
        await self.bring_up()
        await self.until_condition("Ready", "True")
        await self.until_condition("Progressing", "False")
        await self.wait("labels", lambda: self.pods("a"), lambda pods: all(map(has_level, pods.values())))

    async def until(self, what: str, reached: Callable[[Document], Any], name: str = "p") -> Document:
        """Wait until the pool is so."""
        found: Document = await self.wait(what, lambda: self.pool(name), reached)
        return found

    async def wait(
        self, what: str, look: Callable[[], Any], reached: Callable[[Any], Any], limit_s: float = LIMIT_S
    ) -> Any:
        """Look again and again; the condition, not the time, decides."""
        end_s = time.monotonic() + limit_s
        while True:
            seen = await look()
            with suppress(KeyError, IndexError, TypeError):
                if reached(seen):
                    return seen
            assert time.monotonic() < end_s, f"never: {what}; last seen: {str(seen)[-1500:]}"
            await asyncio.sleep(0.05)

    async def until_condition(self, kind: str, status: str, reason: str | None = None, name: str = "p") -> Document:
        """Wait for a condition; returns it."""

        def reached(pool: Document) -> bool:
            one = condition(pool, kind)
            return one["status"] == status and (reason is None or one["reason"] == reason)

        return condition(await self.until(f"{kind}={status} {reason or ''}", reached, name), kind)


def has_level(pod: Document) -> bool:
    """True if its level label is there."""
    return "t2iserving.dev/level" in pod["metadata"]["labels"]


def condition(pool: Document, kind: str) -> Document:
    """A pool's condition.

    Raises:
        KeyError: it has none of that type.
    """
    found: Document = {one["type"]: one for one in pool["status"]["conditions"]}[kind]
    return found


def operator_settings(server: KubeServer, namespace: str, identity: str = "one", url: str = "") -> OperatorSettings:
    """Settings of an operator of one namespace; `url` = a proxy in front of the server."""
    kubeconfig: Path = server.user("admin", ("system:masters",), url) if url else server.kubeconfig
    return parse_arguments(
        [
            f"--namespaces={namespace}",
            f"--lease-namespace={namespace}",
            f"--identity={identity}",
            f"--kubeconfig={kubeconfig}",
            "--metrics-listen=127.0.0.1:0",
            "--health-listen=127.0.0.1:0",
            "--plan-every-s=0.2",
        ],
        {},
    )


@asynccontextmanager
async def running_operator(settings: OperatorSettings) -> AsyncIterator[Operator]:
    """An operator in this event loop; stopped as by SIGTERM at the end. A crash of it fails the test."""
    operator = build_operator(settings)
    task = asyncio.create_task(operator.run())
    try:
        yield operator
    finally:
        operator.stop.set()
        await task


def writes_of(operator: Operator) -> float:
    """Writes that this operator asked for, the lease left out."""
    return sum(
        sample.value
        for metric in operator.registry.collect()
        if metric.name == "t2i_operator_writes"
        for sample in metric.samples
        if sample.name.endswith("_total")
    )
