"""A pool with security on: real gateway and simulated workers over loopback, certificates and tokens mounted."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import grpc

from t2i_policy.profile_document import render_profile
from t2i_protos.v1 import gateway_pb2, gateway_pb2_grpc
from t2i_scenes import embedder_path
from t2i_testing_kit.mounted_secrets import TestAuthority, mount
from t2i_testing_kit.serving import STEPS, WITHIN_S, T, make_profile, metric, metrics_text, until
from t2ictl.processes import ServerProcess

GATEWAY, WORKER = "p-gateway.ns.svc", "p-workers.ns.svc"
START_LIMIT_S = 90.0
POOL = f"""
apiVersion: t2iserving.dev/v1alpha1
kind: T2IServingPool
metadata: {{name: p}}
spec:
  model: {{source: "builtin://scenes", numInferenceSteps: {STEPS}, guidanceScalePercent: 200, width: 48, height: 48,
          precision: fp32}}
  levels: [{{skippedSteps: 0}}, {{skippedSteps: 10}}, {{numInferenceSteps: 10}}]
  workerGroups: [{{name: sim, workers: 1, engine: simulated}}]
  slo: {{latencyMilliseconds: 20000, minQualityPercent: 80}}
  gateway: {{replicas: 1, maxQueuedRequests: 5000}}
"""
INSIDE = {"gatewayClientTlsSecretName": "c", "workerTlsSecretName": "w"}
TOKEN = {"clientAuthentication": "Token", "tokensSecretName": "t", "gatewayTlsSecretName": "g", **INSIDE}
MUTUAL = {"clientAuthentication": "MutualTLS", "gatewayTlsSecretName": "g", **INSIDE}


class Refusal(NamedTuple):
    """What a client is told."""

    code: str
    words: str


@dataclass
class Caller:
    """A client with its proof; close it."""

    channel: grpc.aio.Channel
    token: str = ""
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def stub(self) -> "gateway_pb2_grpc.TextToImageAsyncStub":
        """Of the gateway."""
        return gateway_pb2_grpc.TextToImageStub(self.channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What its calls carry."""
        return (*self.extra, ("authorization", f"Bearer {self.token}")) if self.token else self.extra

    async def generate(
        self, prompt: str, limit_s: float = WITHIN_S, **fields: object
    ) -> list[gateway_pb2.GenerateEvent]:
        """All events of one request."""
        request = gateway_pb2.GenerateRequest(prompt=prompt, **fields)  # type: ignore[arg-type]
        return [event async for event in self.stub.Generate(request, timeout=limit_s, metadata=self.metadata)]

    async def explain(self, prompt: str) -> gateway_pb2.ExplainResponse:
        """What the gateway says would happen."""
        request = gateway_pb2.ExplainRequest(request=gateway_pb2.GenerateRequest(prompt=prompt))
        return await self.stub.Explain(request, timeout=WITHIN_S, metadata=self.metadata)

    async def quick(self, request_id: str = "") -> gateway_pb2.Done:
        """The end of a request of one step."""
        events = await self.generate("a red circle", num_inference_steps=1, seed=1, request_id=request_id)
        return events[-1].done

    async def refusal(self) -> Refusal:
        """The error that a request must end in."""
        try:
            await self.quick()
        except grpc.aio.AioRpcError as error:
            return Refusal(error.code().name, error.details() or "")
        raise AssertionError("the request was served")


@dataclass
class SecuredPool:
    """`security` is the spec's; files are mounted under `folder` before the start and may be swapped while it runs."""

    folder: Path
    security: dict[str, str]
    clients: TestAuthority = field(default_factory=lambda: TestAuthority("clients"))
    inside: TestAuthority = field(default_factory=lambda: TestAuthority("inside"))
    tokens: str = ""
    step_s: float = 0.0005
    cache: str = ""
    profile_batch: int = 8
    gateway: ServerProcess = field(init=False)
    worker: ServerProcess = field(init=False)

    def prepare(self) -> None:
        """Write everything that the processes read, as it is mounted in a cluster."""
        self.folder.mkdir(parents=True, exist_ok=True)
        spec = ", ".join(f"{name}: {value}" for name, value in self.security.items())
        (self.folder / "pool.yaml").write_text(f"{POOL}  security: {{{spec}}}\n  cache: {{{self.cache}}}\n")
        (self.folder / "profile.json").write_text(render_profile(make_profile((self.step_s,) * self.profile_batch)))
        mount(self.folder / "tls", self.clients.issue("localhost", GATEWAY))
        mount(self.folder / "tokens", {"tokens": self.tokens.encode()})
        mount(self.folder / "worker-tls", self.inside.issue(GATEWAY))
        mount(self.folder / "w0-tls", self.inside.issue(WORKER))
        self.worker = ServerProcess("w0", "t2i_worker", self.worker_arguments(), self.folder)

    async def __aenter__(self) -> Self:
        self.prepare()
        self.gateway = ServerProcess("gateway", "t2i_gateway", [], self.folder)
        try:
            await self.worker.start()
            await self.worker.wait_ready(START_LIMIT_S)
            self.gateway.arguments = self.gateway_arguments()
            await self.gateway.start()
            await self.gateway.wait_ready(START_LIMIT_S)
            await self.until("a worker", self.ready_workers, lambda number: number == 1)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for process in (self.gateway, self.worker):
            await process.stop(20)

    @property
    def _inside(self) -> bool:
        return "workerTlsSecretName" in self.security

    @property
    def _shared(self) -> list[str]:
        store = (self.folder / "latents").as_uri()
        pool, profile = str(self.folder / "pool.yaml"), str(self.folder / "profile.json")
        return ["--pool", pool, "--profile", profile, "--store", store]

    def worker_arguments(self) -> list[str]:
        """As the operator renders them."""
        named = ["--tls-dir", str(self.folder / "w0-tls"), "--gateway-name", GATEWAY] if self._inside else []
        return [*self._shared, "--group", "sim", "--name", "w0", *named]

    def gateway_arguments(self) -> list[str]:
        """As the operator renders them, with the worker's address."""
        arguments = [*self._shared, "--workers", self.worker.address, "--embedder", str(embedder_path())]
        arguments += ["--listen-http", "127.0.0.1:0"]
        if "gatewayTlsSecretName" in self.security:
            arguments += ["--tls-dir", str(self.folder / "tls")]
        if "tokensSecretName" in self.security:
            arguments += ["--tokens-dir", str(self.folder / "tokens")]
        if self._inside:
            arguments += ["--worker-tls-dir", str(self.folder / "worker-tls"), "--worker-name", WORKER]
        return arguments

    def caller(
        self,
        token: str = "",
        certificate: dict[str, bytes] | None = None,
        roots: bytes | None = None,
        server_name: str = GATEWAY,
        extra: Sequence[tuple[str, str]] = (),
    ) -> Caller:
        """Connects over TLS if the pool serves it; no connection of another caller is shared."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.ssl_target_name_override", server_name)]
        if "gatewayTlsSecretName" not in self.security:
            return Caller(grpc.aio.insecure_channel(self.gateway.address, options=options[:1]), token, tuple(extra))
        pair = (certificate["tls.key"], certificate["tls.crt"]) if certificate else (None, None)
        credentials = grpc.ssl_channel_credentials(roots or self.clients.pem, *pair)
        return Caller(grpc.aio.secure_channel(self.gateway.address, credentials, options=options), token, tuple(extra))

    async def metric(self, name: str, process: ServerProcess | None = None) -> float:
        """One of the gateway's metrics (or another process's), by name and labels as they are written."""
        return await metric(process or self.gateway, name)

    def metrics_text(self, process: ServerProcess | None = None) -> str:
        """All of them."""
        return metrics_text(process or self.gateway)

    async def ready_workers(self) -> float:
        """As the gateway counts them."""
        return await self.metric("t2i_gateway_ready_workers")

    @staticmethod
    async def until(what: str, look: Callable[[], Awaitable[T]], reached: Callable[[T], bool]) -> T:
        """Look until the condition holds."""
        return await until(what, look, reached)
