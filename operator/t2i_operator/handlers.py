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

from t2i_operator.cluster.kinds import CHILD_KINDS, POD, POOL, Kind
from t2i_operator.hearing import Hearing
from t2i_operator.metrics import OperatorMetrics
from t2i_operator.naming import API_VERSION, FIELD_MANAGER, KIND, MANAGED_BY_LABEL, POOL_LABEL
from t2i_operator.queueing import PoolQueue
from t2i_operator.watching import awaited_in, from_thread

INACTIVITY_S = 70.0


def kopf_settings() -> kopf.OperatorSettings:
    """Every wait of kopf has an end; it posts nothing and scans for nothing."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.watching.inactivity_timeout = INACTIVITY_S
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 5
    settings.networking.request_timeout = 30
    settings.networking.enforce_retry_after = True
    settings.queueing.worker_limit = 64
    settings.persistence.consistency_timeout = 10
    return settings


@dataclass(frozen=True, slots=True)
class Listeners:
    """What is told of events, in the operator's own loop."""

    queue: PoolQueue
    hearing: Hearing
    metrics: OperatorMetrics

    def heard(self, kind: str) -> None:
        """Any event."""
        self.hearing.heard(time.monotonic())
        self.metrics.watch_events.labels(kind).inc()

    def pool(self, key: str, version: str) -> None:
        """A pool was made, changed or deleted."""
        self.heard(KIND)
        self.hearing.heard_of(key, version)
        self.queue.ask(key)

    def child(self, kind: str, key: str | None) -> None:
        """Something of a pool was made, changed or deleted."""
        self.heard(kind)
        if key is not None:
            self.queue.ask(key)


def build_registry(client: ApiClient, listeners: Listeners, loop: asyncio.AbstractEventLoop) -> Any:
    """A registry of our own: two operators in one process (tests) do not share handlers."""
    registry = kopf.OperatorRegistry()
    tell_pool = from_thread(loop, listeners.pool)
    tell_child = from_thread(loop, listeners.child)

    def on_pool(namespace: str | None, name: str | None, body: kopf.Body, **_: Any) -> None:
        tell_pool(f"{namespace}/{name}", str(body.metadata.get("resourceVersion", "")))

    def on_child(namespace: str | None, labels: kopf.Labels, body: kopf.Body, **_: Any) -> None:
        pool = owning_pool(dict(body.metadata)) or labels.get(POOL_LABEL)
        tell_child(str(body.get("kind", "")), f"{namespace}/{pool}" if pool else None)

    kopf.on.login(registry=registry, id="login")(awaited_in(loop, partial(connection_of, client)))
    _watch(registry, POOL, on_pool, {})
    for kind in (*CHILD_KINDS, POD):
        _watch(registry, kind, on_child, {MANAGED_BY_LABEL: FIELD_MANAGER})
    return registry


def _watch(registry: Any, kind: Kind, handler: Any, labels: dict[str, str]) -> None:
    group, _, version = kind.api_version.rpartition("/")
    place = (group, version, kind.plural) if group else (version, kind.plural)
    kopf.on.event(*place, registry=registry, id=f"ask-{kind.plural}", labels=labels or None)(handler)


def owning_pool(metadata: dict[str, Any]) -> str | None:
    """The pool that controls an object."""
    owners = metadata.get("ownerReferences", ())
    pools = [one["name"] for one in owners if one.get("apiVersion") == API_VERSION and one.get("kind") == KIND]
    return pools[0] if pools else None


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
    )
