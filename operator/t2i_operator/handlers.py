"""kopf is the shell only: it watches, and every handler does nothing but ask for a look at a pool.

No handler has state, a finalizer or a return value, so kopf itself never writes to the API server.
"""

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import kopf
from kubernetes.aio.client import ApiClient

from t2i_api.names import FIELD_MANAGER, KIND, MANAGED_BY_LABEL
from t2i_operator.cluster.kinds import CHILD_KINDS, CONFIG_MAP, POD, POOL, ResourceKind
from t2i_operator.cluster.known import OURS, Heard, owner_key
from t2i_operator.cluster.remembering import Memory
from t2i_operator.hearing import Hearing
from t2i_operator.metrics import OperatorMetrics
from t2i_operator.queueing import PoolQueue
from t2i_operator.watching import awaited_in, from_thread

INACTIVITY_S = 70.0


class NothingKept(kopf.DiffBaseStorage):
    """kopf copies every object at every event to see what changed; no handler of ours asks for that."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        """Nothing of it."""
        del body, extra_fields
        return kopf.BodyEssence({})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing was stored."""
        del body
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is stored."""
        del body, patch, essence


def kopf_settings() -> kopf.OperatorSettings:
    """Every wait of kopf has an end; it posts nothing and scans for nothing. Children are selected by the server.

    kopf keeps a worker for every object that an event told of, until it has been idle for `idle_timeout`; with its 5 s
    a `worker_limit` of 64 would let 13 objects a second through. Our handlers take no time, so the limit only bounds
    memory while thousands of objects are listed.
    """
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.inactivity_timeout = INACTIVITY_S
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 5
    settings.networking.request_timeout = 30
    settings.networking.enforce_retry_after = True
    settings.queueing.worker_limit = 256
    settings.queueing.idle_timeout = 0.1
    settings.persistence.consistency_timeout = 10
    settings.persistence.diffbase_storage = NothingKept()
    for kind in (*CHILD_KINDS, POD):
        if kind is not CONFIG_MAP:  # profiles are ConfigMaps too, and carry no label of ours
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = OURS
    return settings


@dataclass(frozen=True, slots=True)
class Listeners:
    """What is told of events, in the operator's own loop."""

    queue: PoolQueue
    hearing: Hearing
    metrics: OperatorMetrics
    memory: Memory
    begun: asyncio.Event  # a watch begins, at first or anew

    def object(self, namespace: str, key: str | None, heard: Heard) -> None:
        """A pool or something of it was made, changed or deleted: look, unless we know already. No key: the object does
        not tell whose it is (any more).
        """
        self._count(heard.kind)
        if heard.listed:
            self.begun.set()
        if heard.kind == KIND and key is not None:
            self.hearing.heard_of(key, heard.version)
        key = key or self.memory.whose(namespace, heard)
        if key is not None and self.memory.hear(key, heard):
            self.queue.ask(key)

    def profile(self, namespace: str, name: str, version: str) -> None:
        """A ConfigMap of somebody else was; it may be what some pools' profileRef names."""
        for key in self.memory.hear_profile(namespace, name, version):
            self.queue.ask(key)

    def _count(self, kind: str) -> None:
        self.hearing.heard(time.monotonic())
        self.metrics.watch_events.labels(kind).inc()


def build_registry(client: ApiClient, listeners: Listeners, loop: asyncio.AbstractEventLoop) -> Any:
    """A registry of our own: two operators in one process (tests) do not share handlers."""
    registry = kopf.OperatorRegistry()
    tell, tell_profile = from_thread(loop, listeners.object), from_thread(loop, listeners.profile)

    async def on_pool(type: str | None, body: kopf.Body, **_: Any) -> None:
        metadata = body.metadata
        tell(metadata["namespace"], f"{metadata['namespace']}/{metadata['name']}", heard_of(KIND, type, metadata))

    def on_child_of(kind: str) -> Any:
        async def on_child(type: str | None, body: kopf.Body, **_: Any) -> None:
            metadata = dict(body.metadata)
            tell(metadata["namespace"], owner_key({"metadata": metadata}), heard_of(kind, type, metadata))

        return on_child

    async def on_other(type: str | None, body: kopf.Body, **_: Any) -> None:
        metadata = body.metadata
        version = "" if type == "DELETED" else str(metadata.get("resourceVersion", ""))
        tell_profile(metadata["namespace"], metadata["name"], version)

    kopf.on.login(registry=registry, id="login")(awaited_in(loop, partial(connection_of, client)))
    _watch(registry, POOL, on_pool, {})
    for kind in (*CHILD_KINDS, POD):
        _watch(registry, kind, on_child_of(kind.kind), {MANAGED_BY_LABEL: FIELD_MANAGER})
    others = {MANAGED_BY_LABEL: lambda manager, **_: manager != FIELD_MANAGER}
    _watch(registry, CONFIG_MAP, on_other, others, "profiles")
    return registry


def heard_of(kind: str, event: str | None, metadata: Any) -> Heard:
    """What an event tells; `event` is None for what the first list shows."""
    version = str(metadata.get("resourceVersion", ""))
    return Heard(kind, metadata["name"], str(metadata.get("uid", "")), version, event == "DELETED", event is None)


def _watch(registry: Any, kind: ResourceKind, handler: Any, labels: Any, name: str = "") -> None:
    name = name or f"ask-{kind.plural}"
    kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=name, labels=labels or None)(handler)


async def connection_of(client: ApiClient) -> kopf.ConnectionInfo:
    """kopf connects as our own client does."""
    configuration = client.configuration
    headers: dict[str, str] = {}
    await client.update_params_for_auth(headers, [], ["BearerToken"], "", "GET", None)
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy_url=configuration.proxy,
        trust_env=bool((configuration.client_session_kwargs or {}).get("trust_env")),
    )
