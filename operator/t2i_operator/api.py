"""Calls to the API server: each has a deadline, is retried when that can help, and ends in our own errors.

Every write is safe to repeat: server-side apply of our fields only, deletions and patches that name a UID, events whose
names follow from their content. So a timeout after the server committed is answered by asking again.

`gate` is asked before every write, retries included: it raises when the lease is lost. A write's deadline is shorter
than the least that the lease has left. So nothing is written after another operator took over.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient

from t2i_api.names import API_VERSION, FIELD_MANAGER, KIND
from t2i_operator.errors import ApiError, Conflict, NotFound, TryLater, WriteRefused
from t2i_operator.kinds import CHILD_KIND, EVENT, LEASE, POD, POOL, ResourceKind
from t2i_operator.manifests.child import Manifest, PoolRef
from t2i_operator.metrics import OperatorMetrics
from t2i_policy.backoff import Backoff

READ_LIMIT_S = 10.0
WRITE_LIMIT_S = 4.0
PAGE = 100  # objects that are in memory whole; it is several times what is kept of them
CALLS_AT_ONCE = 16  # more only wait in a busy API server, past their deadlines; and the lease needs a connection
TRIES = 4
BACKOFF = Backoff(first_s=0.4, most_s=5.0)
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
MISFIT = "failed to create typed patch object"  # a manifest that has not the kind's schema, answered with 500
Gate = Callable[[], None]


class KubeApi:
    """One connection; close its client."""

    def __init__(self, client: ApiClient, gate: Gate, metrics: OperatorMetrics) -> None:
        self.client = client
        self._gate = gate
        self._metrics = metrics
        self._slots = asyncio.Semaphore(CALLS_AT_ONCE)

    async def get(self, path: str) -> Manifest:
        """One object.

        Raises:
            ApiError: see `errors`.
        """
        return await self._retried("GET", path, {}, None)

    async def list(self, path: str, fields: str) -> list[Manifest]:
        """The objects of a small collection that have these fields, as of now: never from a stale cache."""
        answer = await self._retried("GET", path, {"fieldSelector": fields}, None)
        items: list[Manifest] = answer["items"]
        return items

    async def list_pages(self, path: str, labels: str = "", fields: str = "") -> AsyncIterator[Manifest]:
        """A collection, or what of it carries these labels and fields, page by page."""
        query = {"limit": str(PAGE)}
        query |= {"labelSelector": labels} if labels else {}
        query |= {"fieldSelector": fields} if fields else {}
        while True:
            page = await self._retried("GET", path, query, None)
            yield page
            rest = page["metadata"].get("continue")
            if not rest:
                return
            query = {**query, "continue": rest}

    async def apply(self, kind: ResourceKind, manifest: Manifest, uid: str | None) -> Manifest:
        """Server-side apply; with `uid` only to that very object."""
        metadata = manifest["metadata"]
        body = manifest if uid is None else {**manifest, "metadata": {**metadata, "uid": uid}}
        path = kind.path(metadata["namespace"], metadata["name"])
        return await self._write("PATCH", path, body, kind.kind, APPLY)

    async def apply_status(self, ref: PoolRef, status: Mapping[str, Any]) -> Manifest:
        """Replace the status of exactly this pool, in the version that the decision was made from: a status out of a
        stale answer ends in a `Conflict`.
        """
        metadata = {"name": ref.name, "namespace": ref.namespace, "uid": ref.uid, "resourceVersion": ref.version}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": dict(status)}
        return await self._write("PATCH", POOL.path(ref.namespace, ref.name, "status"), body, "PoolStatus", APPLY)

    async def label_pod(self, namespace: str, name: str, uid: str, labels: Mapping[str, str]) -> Manifest | None:
        """Set labels of exactly this pod; None if it has gone, then it needs none."""
        body = {"metadata": {"uid": uid, "labels": dict(labels)}}
        try:
            return await self._write("PATCH", POD.path(namespace, name), body, "PodLabel", MERGE)
        except NotFound:
            return None

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete exactly this object; one that has gone is fine."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._write("DELETE", CHILD_KIND[kind].path(namespace, name), body, kind)
        except NotFound:
            return

    async def post_event(self, namespace: str, event: Manifest) -> None:
        """An event; if it is there already, it was posted before a restart."""
        try:
            await self._write("POST", EVENT.path(namespace), event, "Event")
        except Conflict:
            return

    async def write_lease(self, namespace: str, lease: Manifest, create: bool) -> Manifest:
        """Create or replace the lease, once and without asking the gate: this is how we come to hold it."""
        if create:
            return await self._once("POST", LEASE.path(namespace), {"fieldManager": FIELD_MANAGER}, lease)
        path = LEASE.path(namespace, lease["metadata"]["name"])
        return await self._once("PUT", path, {"fieldManager": FIELD_MANAGER}, lease)

    async def read_lease(self, namespace: str, name: str) -> Manifest:
        """The lease as it is."""
        return await self._once("GET", LEASE.path(namespace, name), {}, None)

    async def _write(
        self, method: str, path: str, body: Manifest, what: str, content_type: str = "application/json"
    ) -> Manifest:
        query = {} if method == "DELETE" else {"fieldManager": FIELD_MANAGER}
        if content_type == APPLY:
            query["force"] = "true"
        self._metrics.writes.labels(what).inc()
        return await self._retried(method, path, query, body, content_type)

    async def _retried(
        self, method: str, path: str, query: Mapping[str, str], body: Manifest | None, content_type: str = ""
    ) -> Manifest:
        for tried in range(1, TRIES + 1):
            try:
                async with self._slots:  # waiting for a turn is no part of a call's deadline
                    if method != "GET":
                        self._gate()
                    return await self._once(method, path, query, body, content_type)
            except TryLater as error:
                self._metrics.retries.labels(str(error.status)).inc()
                if tried == TRIES:
                    raise
                pause_s = min(BACKOFF.most_s, error.after_s or BACKOFF.pause_s(tried))
            await asyncio.sleep(pause_s * random.uniform(1.0, 1.2))
        raise AssertionError("not reached")

    async def _once(
        self, method: str, path: str, query: Mapping[str, str], body: Manifest | None, content_type: str = ""
    ) -> Manifest:
        limit_s = READ_LIMIT_S if method == "GET" else WRITE_LIMIT_S
        headers = {"Accept": "application/json", "Content-Type": content_type or "application/json"}
        try:
            async with asyncio.timeout(limit_s):
                call = await self.client.param_serialize(
                    method, path, query_params=list(query.items()), header_params=headers, body=body,
                    auth_settings=["BearerToken"],
                )  # fmt: skip
                answer = await self.client.call_api(*call[:4], _request_timeout=limit_s)
                text: bytes = await answer.read()  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            raise TryLater(0, f"{method} {path}: no answer within {limit_s:.0f} s") from error
        except aiohttp.ClientError as error:
            raise TryLater(0, f"{method} {path}: {error}") from error
        if 200 <= answer.status < 300:
            parsed: Manifest = json.loads(text)
            return parsed
        raise to_error(answer.status, f"{method} {path}: {_message(text)}", answer.headers.get("Retry-After"))


def to_error(status: int, message: str, retry_after: str | None) -> ApiError:
    """The error of an HTTP status."""
    if status == 404:
        return NotFound(status, message)
    if status == 409:
        return Conflict(status, message)
    if status == 500 and MISFIT in message:
        return WriteRefused(status, message)
    if status in (401, 408, 429) or status >= 500:
        return TryLater(status, message, float(retry_after) if retry_after and retry_after.isdigit() else None)
    return WriteRefused(status, message)


def _message(text: bytes) -> str:
    try:
        return str(json.loads(text).get("message", ""))[:500]
    except (ValueError, AttributeError):
        return text[:200].decode(errors="replace")
