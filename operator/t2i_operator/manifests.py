"""Manifests: plain dicts as the API server takes them, and what marks one as a pool's child.

A child carries its owner's UID (owner reference and annotation) and the hash of what was rendered, so an unchanged
child is recognised without a write.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from t2i_api.names import (
    API_VERSION,
    HASH_ANNOTATION,
    KIND,
    POOL_UID_ANNOTATION,
    common_labels,
)

Manifest = dict[str, Any]


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


def child(ref: PoolRef, component: str, api_version: str, kind: str, body: Mapping[str, Any]) -> Manifest:
    """A child of the pool: `body` has `name` and everything but the common metadata."""
    content = {key: value for key, value in body.items() if key != "name"}
    manifest: Manifest = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": body["name"],
            "namespace": ref.namespace,
            "labels": common_labels(ref.name, component),
            "annotations": {POOL_UID_ANNOTATION: ref.uid},
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
