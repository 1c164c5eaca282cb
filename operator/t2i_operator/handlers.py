"""kopf is the shell only: it watches, and every handler does nothing but ask for a look at a pool.

No handler has state, a finalizer or a return value, so kopf itself never writes to the API server.
"""

import time
from typing import Any

import kopf
from kubernetes.aio.client import ApiClient

from t2i_operator.cluster.kinds import CHILD_KINDS, POD, POOL, Kind
from t2i_operator.hearing import Hearing
from t2i_operator.metrics import OperatorMetrics
from t2i_operator.naming import API_VERSION, FIELD_MANAGER, KIND, MANAGED_BY_LABEL, POOL_LABEL
from t2i_operator.queueing import PoolQueue

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


def build_registry(client: ApiClient, queue: PoolQueue, hearing: Hearing, metrics: OperatorMetrics) -> Any:
    """A registry of our own: two operators in one process (tests) do not share handlers."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry, id="login")
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection_of(client)

    def on_pool(namespace: str | None, name: str | None, body: kopf.Body, **_: Any) -> None:
        key = f"{namespace}/{name}"
        _heard(KIND)
        hearing.heard_of(key, str(body.metadata.get("resourceVersion", "")))
        queue.ask(key)

    def on_child(namespace: str | None, labels: kopf.Labels, body: kopf.Body, **_: Any) -> None:
        _heard(str(body.get("kind", "")))
        pool = owning_pool(dict(body.metadata)) or labels.get(POOL_LABEL)
        if pool:
            queue.ask(f"{namespace}/{pool}")

    def _heard(kind: str) -> None:
        hearing.heard(time.monotonic())
        metrics.watch_events.labels(kind).inc()

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
