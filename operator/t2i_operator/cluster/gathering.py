"""Gather: one look at a pool, all facts at once, always from the API server and never from a watch's memory.

Watches only say when to look. What was seen may be a moment old when it is acted on; that is why every write names the
UID that it is meant for.
"""

import asyncio
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from t2i_operator.children import Images
from t2i_operator.cluster.api import KubeApi
from t2i_operator.cluster.kinds import CHILD_KIND, CHILD_KINDS, CONFIG_MAP, POD, POOL, Kind
from t2i_operator.deciding.children import key_of
from t2i_operator.deciding.observed import ChildKey, ChildSeen, DemandReport, Observed, Problem, Wanted
from t2i_operator.deciding.pods import read_pod
from t2i_operator.deciding.wanting import PROFILE_MISSING, want
from t2i_operator.errors import NotFound
from t2i_operator.manifests import Manifest, PoolRef
from t2i_operator.naming import COMPONENT_LABEL, FIELD_MANAGER, GATEWAY, MANAGED_BY_LABEL, POOL_LABEL, WORKER

PROFILE_KEY = "profile.json"


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was seen, and what the spec wants."""

    seen: Observed
    wanted: Wanted | Problem
    gateways: tuple[Manifest, ...]


async def gather(
    api: KubeApi, namespace: str, name: str, images: Images, reports: tuple[DemandReport, ...]
) -> Gathered:
    """See the module.

    Raises:
        NotFound: the pool is gone.
        ApiError: see `errors`.
    """
    document = await api.get(POOL.path(namespace, name))
    ref = PoolRef(namespace, name, document["metadata"]["uid"])
    wanted = want(ref, document, await _profile(api, ref, document), images)
    labels = f"{POOL_LABEL}={name},{MANAGED_BY_LABEL}={FIELD_MANAGER}"
    *listed, pods = await asyncio.gather(
        *(api.list(kind.path(namespace), labels) for kind in CHILD_KINDS),
        api.list(POD.path(namespace), labels),
    )
    children = {
        (kind.kind, item["metadata"]["name"]): to_child(kind, item)
        for kind, items in zip(CHILD_KINDS, listed, strict=True)
        for item in items
    }
    if isinstance(wanted, Wanted):
        children |= await _unlabelled(api, wanted, children)
    seen = Observed(
        ref=ref,
        generation=document["metadata"].get("generation", 0),
        status=document.get("status") or {},
        deleting="deletionTimestamp" in document["metadata"],
        children=children,
        workers=tuple(read_pod(pod) for pod in pods if _component(pod) == WORKER),
        gateways=tuple(read_pod(pod) for pod in pods if _component(pod) == GATEWAY),
        reports=reports,
    )
    return Gathered(seen, wanted, tuple(pod for pod in pods if _component(pod) == GATEWAY))


def to_child(kind: Kind, item: Manifest) -> ChildSeen:
    """Lists leave out what kind their items are."""
    metadata = item["metadata"]
    owners = [owner["uid"] for owner in metadata.get("ownerReferences", ()) if owner.get("controller")]
    manifest = {"apiVersion": kind.api_version, "kind": kind.kind, **item}
    return ChildSeen(manifest, metadata["uid"], owners[0] if owners else None, "deletionTimestamp" in metadata)


def _component(pod: Manifest) -> str | None:
    component: str | None = pod["metadata"].get("labels", {}).get(COMPONENT_LABEL)
    return component


async def _unlabelled(api: KubeApi, wanted: Wanted, listed: dict[ChildKey, ChildSeen]) -> dict[ChildKey, ChildSeen]:
    """Objects that have a child's name and not our labels: stripped by hand, or somebody else's."""
    missing = [manifest for manifest in wanted.children if key_of(manifest) not in listed]
    found = await asyncio.gather(*(_find(api, manifest) for manifest in missing))
    return {key_of(child.manifest): child for child in found if child is not None}


async def _find(api: KubeApi, manifest: Manifest) -> ChildSeen | None:
    kind, metadata = CHILD_KIND[manifest["kind"]], manifest["metadata"]
    try:
        return to_child(kind, await api.get(kind.path(metadata["namespace"], metadata["name"])))
    except NotFound:
        return None


async def _profile(api: KubeApi, ref: PoolRef, document: Manifest) -> str | Problem:
    """The profile's text: from the ConfigMap that the spec names, else the builtin model's own."""
    spec: dict[str, Any] = document.get("spec", {})
    name = (spec.get("profileRef") or {}).get("name")
    if name is None:
        return _builtin_profile(str(spec.get("model", {}).get("source", "")))
    try:
        config = await api.get(CONFIG_MAP.path(ref.namespace, name))
    except NotFound:
        return Problem(PROFILE_MISSING, f"profileRef: there is no ConfigMap {name!r} in namespace {ref.namespace!r}")
    text = (config.get("data") or {}).get(PROFILE_KEY)
    if text is None:
        return Problem(PROFILE_MISSING, f"profileRef: ConfigMap {name!r} has no key {PROFILE_KEY!r}")
    return str(text)


def _builtin_profile(source: str) -> str | Problem:
    scheme, _, model = source.partition("://")
    found = find_spec(f"t2i_{model}") if scheme == "builtin" and model.isidentifier() else None
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "model" / PROFILE_KEY
        if path.is_file():
            return path.read_text()
    text = "measure one with t2ictl profile, put it into a ConfigMap as profile.json and name it in profileRef"
    return Problem(PROFILE_MISSING, f"profileRef: model {source!r} comes without a profile; {text}")
