"""Manifests are plain dicts, as the API server takes them. Here: what they are made from, and what marks a child.

A child carries its owner's UID (owner reference and annotation) and the hash of what was rendered. So an unchanged
child is recognised without a write.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from t2i_api.names import (
    API_VERSION,
    GROUP,
    HASH_ANNOTATION,
    KIND,
    POOL_UID_ANNOTATION,
    common_labels,
    gateway_name,
    workers_name,
)
from t2i_api.pool import PoolSpec

Manifest = dict[str, Any]
CONFIG_HASH = f"{GROUP}/config-hash"  # of what a process reads at its start alone: another one restarts it


@dataclass(frozen=True, slots=True)
class PoolRef:
    """Which pool: a recreated one of the same name has another UID. `version` = its document as it was read."""

    namespace: str
    name: str
    uid: str
    version: str = ""

    @property
    def key(self) -> str:
        """For logs and queues."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Images:
    """The images to run, how they are pulled, and the namespace of the operator that does it all (empty: any)."""

    gateway: str
    worker: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    operator_namespace: str = ""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What children are rendered from: a pool, its measured profile (the JSON text), and the images."""

    ref: PoolRef
    spec: PoolSpec
    profile: str
    images: Images

    @property
    def drain_s(self) -> int:
        """Seconds that requests in flight get when a process must go: two SLOs, within bounds."""
        return max(30, min(600, 2 * self.spec.slo.latency_milliseconds // 1000))


def gateway_dns(inputs: Inputs) -> str:
    """The name in gateways' certificates, which is also their Service's: who may call a worker or the auditor."""
    return f"{gateway_name(inputs.ref.name)}.{inputs.ref.namespace}.svc"


def worker_dns(inputs: Inputs) -> str:
    """The name in the certificates of all workers of the pool, and of its auditor: whom to expect at their address."""
    return f"{workers_name(inputs.ref.name)}.{inputs.ref.namespace}.svc"


def child(
    ref: PoolRef,
    component: str,
    api_version: str,
    kind: str,
    body: Mapping[str, Any],
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """A child of the pool: `body` has `name` and everything but the common metadata. `annotations`: the owner's."""
    content = {key: value for key, value in body.items() if key != "name"}
    manifest: Manifest = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": body["name"],
            "namespace": ref.namespace,
            "labels": common_labels(ref.name, component),
            "annotations": {**(annotations or {}), POOL_UID_ANNOTATION: ref.uid},
            "ownerReferences": [owner_reference(ref)],
        },
        **content,
    }
    manifest["metadata"]["annotations"][HASH_ANNOTATION] = digest(manifest)
    return manifest


def owner_reference(ref: PoolRef) -> Manifest:
    """The garbage collector deletes what carries it when the pool goes."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": ref.name,
        "uid": ref.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owning_pool(metadata: Mapping[str, Any]) -> str | None:
    """The pool that controls an object."""
    owners = metadata.get("ownerReferences", ())
    pools = [one["name"] for one in owners if one.get("apiVersion") == API_VERSION and one.get("kind") == KIND]
    return pools[0] if pools else None


def digest(value: object) -> str:
    """A short hash of any JSON value; the order of keys does not matter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
