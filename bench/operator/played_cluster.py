"""What a benchmark of the operator plays: the kubelet, the controllers of workloads, and gateways that report demand.

All of it speaks to the API server directly, never through the proxy that counts the operator's calls.
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import grpc

from t2i_protos.v1 import control_pb2, control_pb2_grpc
from t2i_testing_kit.kube.server import KubeServer

Document = dict[str, Any]
HOST = "127.0.0.1"
POOLS = "/apis/t2iserving.dev/v1alpha1/t2iservingpools"
WORKLOADS = ("/apis/apps/v1/statefulsets", "/apis/apps/v1/deployments")
MANAGED = "app.kubernetes.io%2Fmanaged-by=t2i-operator"
MERGE = "application/merge-patch+json"
STEP_MS, FIXED_MS = 40.0, 10.0
PARALLEL = 16


class PlayedGateways(control_pb2_grpc.ControlServicer):
    """Answers for every gateway that has its address; `rate_rps` is what each reports as steady demand."""

    def __init__(self, rate_rps: float) -> None:
        self.rate_rps = rate_rps
        self.asked = 0
        self.port = 0

    async def GetDemand(  # noqa: N802 - gRPC names its methods
        self, request: control_pb2.GetDemandRequest, context: Any
    ) -> control_pb2.GetDemandResponse:
        """Two classes, and what the workers of group `a` would have measured."""
        del request, context
        self.asked += 1
        half = self.rate_rps / 2
        return control_pb2.GetDemandResponse(
            demand=[control_pb2.ClassDemand(prompt_class=name, rate_rps=half) for name in ("none", "exact")],
            measurements=[control_pb2.GroupMeasurement(group="a", step_ms=[STEP_MS], fixed_ms=FIXED_MS)],
        )

    async def start(self, stack: AsyncExitStack) -> None:
        server = grpc.aio.server()
        control_pb2_grpc.add_ControlServicer_to_server(self, server)
        self.port = server.add_insecure_port(f"{HOST}:0")
        await server.start()
        stack.push_async_callback(server.stop, None)


class PlayedCluster:
    """An async context manager. Whatever workload appears is brought up; `conditions` follows every pool."""

    def __init__(self, server: KubeServer, gateways: PlayedGateways) -> None:
        self._server = server
        self._gateways = gateways
        self._own_gateways: dict[str, int] = {}
        self._done: set[tuple[str, int]] = set()
        self._slots = asyncio.Semaphore(PARALLEL)
        self.ready_at_s: dict[str, float] = {}
        self.plans: dict[str, Document] = {}
        self._changed = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> "PlayedCluster":
        context = ssl.create_default_context(cafile=str(self._server.ca_file))
        folder = self._server.authority.folder
        context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=2 * PARALLEL), timeout=aiohttp.ClientTimeout(total=None)
        )
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        watches = [(POOLS, self._pool_changed), *((path, self._workload_changed) for path in WORKLOADS)]
        self._tasks = [self._group.create_task(self._watch(path, react)) for path, react in watches]
        return self

    async def __aexit__(self, *exc_info: Any) -> None:
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)
        await self._session.close()

    def give_gateway(self, pool: str, gateways: PlayedGateways) -> None:
        """Let this pool (`NAMESPACE/NAME`) have gateways of its own, before it is created."""
        self._own_gateways[pool] = gateways.port

    async def call(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Document:
        """One request that must succeed."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": kind}
        async with self._session.request(method, self._server.url + path, data=data, headers=headers) as answer:
            parsed: Document = await answer.json(content_type=None)
            if not answer.ok and answer.status != 409:
                raise RuntimeError(f"{method} {path}: {answer.status} {parsed.get('message')}")
            return parsed

    async def wait(self, reached: Callable[[], bool], limit_s: float) -> bool:
        """Wait for a change of a pool that makes it so; False after `limit_s`."""
        try:
            async with asyncio.timeout(limit_s), self._changed:
                await self._changed.wait_for(reached)
        except TimeoutError:
            return False
        return True

    async def _watch(self, path: str, react: Callable[[Document], Coroutine[Any, Any, None] | None]) -> None:
        """List, then watch for ever; the API server ends watches now and then."""
        version = ""
        selector = "" if path == POOLS else f"&labelSelector={MANAGED}"
        while True:
            if not version:
                listed = await self.call("GET", f"{path}?limit=1")
                version = listed["metadata"]["resourceVersion"]
            async for event in self._events(f"{path}?watch=true&resourceVersion={version}{selector}"):
                if event["type"] == "ERROR":
                    version = ""
                    break
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] in ("ADDED", "MODIFIED") and (work := react(event["object"])) is not None:
                    self._group.create_task(work)

    async def _events(self, path: str) -> AsyncIterator[Document]:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=None)
        async with self._session.get(self._server.url + path, timeout=timeout) as answer:
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)

    async def _pool_changed(self, pool: Document) -> None:
        metadata, status = pool["metadata"], pool.get("status", {})
        key = f"{metadata['namespace']}/{metadata['name']}"
        conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
        async with self._changed:
            if conditions.get("Ready") == "True":
                self.ready_at_s.setdefault(key, time.monotonic())
            if "plan" in status:
                self.plans[key] = status["plan"]
            self._changed.notify_all()

    def _workload_changed(self, workload: Document) -> Coroutine[Any, Any, None] | None:
        """Bring it up once per generation."""
        metadata = workload["metadata"]
        mark = (metadata["uid"], metadata["generation"])
        if mark in self._done:
            return None
        self._done.add(mark)
        return self._bring_up(workload)

    async def _bring_up(self, workload: Document) -> None:
        metadata, spec = workload["metadata"], workload["spec"]
        kind = "deployments" if "strategy" in spec else "statefulsets"
        async with self._slots:
            for number in range(spec["replicas"]):
                await self._start_pod(workload, number)
            replicas = spec["replicas"]
            status = {"observedGeneration": metadata["generation"], "replicas": replicas}
            status |= {"updatedReplicas": replicas, "readyReplicas": replicas}
            path = f"/apis/apps/v1/namespaces/{metadata['namespace']}/{kind}/{metadata['name']}/status"
            await self.call("PATCH", path, {"status": status}, MERGE)

    async def _start_pod(self, workload: Document, number: int) -> None:
        namespace, template = workload["metadata"]["namespace"], workload["spec"]["template"]
        labels = template["metadata"]["labels"]
        pool = f"{namespace}/{labels['t2iserving.dev/pool']}"
        port = self._own_gateways.get(pool, self._gateways.port)
        name = f"{workload['metadata']['name']}-{number}"
        pod = {"metadata": {"name": name, "labels": labels}, "spec": with_control_port(template["spec"], port)}
        await self.call("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
        ready = [{"type": "Ready", "status": "True"}]
        status = {"conditions": ready, "phase": "Running", "podIP": HOST, "podIPs": [{"ip": HOST}]}
        await self.call("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}/status", {"status": status}, MERGE)


def with_control_port(spec: Document, port: int) -> Document:
    """The pod's spec with the control port of our own gateway in it."""
    containers = [
        {
            **container,
            "ports": [
                {**one, "containerPort": port} if one.get("name") == "control" else one
                for one in container.get("ports", ())
            ],
        }
        for container in spec["containers"]
    ]
    return {**spec, "containers": containers}
