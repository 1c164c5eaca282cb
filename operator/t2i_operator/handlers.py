"""kopf is the shell only: it watches, and every object that it brings goes whole into the mirror.

No handler has state, a finalizer or a return value, so kopf itself never writes to the API server.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import kopf
from kubernetes.aio.client import ApiClient

from t2i_operator.api import PAGE
from t2i_operator.kinds import CONFIG_MAP, POOL, ResourceKind
from t2i_operator.manifests.child import Manifest
from t2i_operator.metrics import OperatorMetrics
from t2i_operator.mirror import OURS, WATCHED_KINDS, Mirror
from t2i_operator.queue import PoolQueue
from t2i_operator.resync import Resync
from t2i_operator.watching import awaited_in, from_thread

#: Kind and object; is it deleted? Does the watch begin with it?
Hear = Callable[[ResourceKind, Any, bool, bool], None]
INACTIVITY_S = 70.0


class NothingKept(kopf.DiffBaseStorage):
    """kopf copies every object at every event to see what changed; no handler of ours asks for that."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        del body, extra_fields
        return kopf.BodyEssence({})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        del body
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        del body, patch, essence


def kopf_settings() -> kopf.OperatorSettings:
    """Every wait of kopf has an end; it posts nothing and scans for nothing. Children are selected by the server.

    kopf keeps a worker for every object that an event told of, and with it the whole object. That lasts until the
    worker has been idle for `idle_timeout`. A `worker_limit` would keep more: lists are read on, and what waits for a
    worker waits without a bound. Without one, a page is handled before the next comes.
    """
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.inactivity_timeout = INACTIVITY_S
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 5
    settings.watching.chunk_size = PAGE
    settings.networking.request_timeout = 30
    settings.networking.enforce_retry_after = True
    settings.queueing.idle_timeout = 0.1
    settings.persistence.consistency_timeout = 10
    settings.persistence.diffbase_storage = NothingKept()
    for kind in WATCHED_KINDS:
        if kind is not CONFIG_MAP:  # profiles are ConfigMaps too, and carry no label of ours
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = OURS
    return settings


@dataclass(slots=True)
class Listener:
    """What becomes of the events of watches."""

    mirror: Mirror
    queue: PoolQueue
    resync: Resync
    metrics: OperatorMetrics
    last_s: float = field(default_factory=time.monotonic)

    def hear(self, kind: ResourceKind, item: Manifest, deleted: bool, listed: bool) -> None:
        """An event; `listed` = the watch begins with it."""
        self.last_s = time.monotonic()
        self.metrics.watch_events.labels(kind.kind).inc()
        if listed:
            self.resync.begun.set()
        for key in self.mirror.hear(kind, item, deleted):
            self.queue.ask(key)

    def restarted(self) -> None:
        """All watches ended, and begin anew."""
        self.metrics.watch_restarts.inc()
        self.resync.begun.set()


def build_registry(client: ApiClient, hear: Hear, loop: asyncio.AbstractEventLoop) -> Any:
    """A registry of our own: two operators in one process (tests) do not share handlers. `hear` runs in `loop`."""
    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry, id="login")(awaited_in(loop, partial(connection_of, client)))
    for kind in (POOL, *WATCHED_KINDS):
        handler = _handler(kind, from_thread(loop, hear))
        kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=kind.plural)(handler)
    return registry


def _handler(kind: ResourceKind, hear: Callable[..., None]) -> Any:
    """kopf says None instead of a type for what the list at a watch's beginning shows."""

    async def on_event(type: str | None, event: kopf.RawEvent, **_: Any) -> None:
        hear(kind, event["object"], type == "DELETED", type is None)

    return on_event


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
