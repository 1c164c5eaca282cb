"""Observe: one look at a pool, all facts at once, out of the mirror.

Only what the mirror cannot hold is read from the API server. One thing is whether a stranger's object has the name that
a new child should get. The other is events on pods that cannot be made or started.

What was seen may be a moment old when it is acted on; that is why every write names the UID that it is meant for.
"""

import asyncio
import functools
from dataclasses import dataclass, replace

from t2i_api.names import AUDITOR, COMPONENT_LABEL, GATEWAY, WORKER
from t2i_operator.api import KubeApi
from t2i_operator.decide.children import is_ours, key_of
from t2i_operator.decide.pods import (
    FAILED_CREATE,
    FAILED_MOUNT,
    find_starved,
    find_unmounted,
    is_creating,
    is_short,
    name_fields,
    read_pod,
    tell_unmounted,
)
from t2i_operator.decide.types import (
    NOTHING_FOLLOWED,
    NOTHING_HEARD,
    ChildKey,
    ChildSeen,
    DemandReport,
    DesiredPool,
    HeardAudits,
    Observed,
    Problem,
    Trouble,
)
from t2i_operator.desired import PROFILE_MISSING
from t2i_operator.errors import NotFound
from t2i_operator.kinds import CHILD_KIND, CHILD_KINDS, CONFIG_MAP, EVENT, POD, ResourceKind
from t2i_operator.manifests.child import Manifest, PoolRef
from t2i_operator.mirror import Mirror, profile_name
from t2i_policy.planning.moves import FollowedDemand
from t2i_sources import builtin_folder

PROFILE_KEY = "profile.json"


@dataclass(frozen=True, slots=True)
class PolledReports:
    """What the pods of a pool last said when they were polled."""

    reports: tuple[DemandReport, ...] = ()
    audits: HeardAudits = NOTHING_HEARD
    followed: FollowedDemand = NOTHING_FOLLOWED


async def observe(
    api: KubeApi,
    mirror: Mirror,
    document: Manifest,
    desired: DesiredPool | Problem,
    heard: PolledReports,
) -> Observed:
    """Everything that a decision about this pool is made from.

    Raises:
        ApiError: see `errors`.
    """
    seen = replace(mirrored(mirror, document), reports=heard.reports, audits=heard.audits, followed=heard.followed)
    if isinstance(desired, DesiredPool):
        unserved = await _find_unserved(api, desired, seen)
        desired = desired.without(unserved)
        children = {**await _find_missing(api, mirror, desired, seen), **seen.children}
        seen = replace(seen, children=children, unserved=unserved)
    workloads, auditor = _short_ones(seen)
    seen = replace(
        seen,
        starved=await _find_starved(api, seen.ref, workloads),
        starved_auditor=await _find_starved(api, seen.ref, auditor),
    )
    creating = [pod for pod in mirror.belongings(seen.ref.key, POD) if is_creating(pod)]
    if creating:
        seen = tell_unmounted(seen, find_unmounted(creating, await _mount_events(api, seen.ref)))
    return replace(name_fields(seen, desired), creating=bool(creating))


def mirrored(mirror: Mirror, document: Manifest) -> Observed:
    """What is known without asking anybody."""
    ref = ref_of(document)
    return Observed(
        ref=ref,
        generation=document["metadata"].get("generation", 0),
        status=document.get("status") or {},
        deleting="deletionTimestamp" in document["metadata"],
        children=_children(mirror, ref.key),
        workers=tuple(map(read_pod, _pods(mirror, ref.key, WORKER))),
        gateways=tuple(map(read_pod, gateways_of(mirror, ref.key))),
        auditors=tuple(map(read_pod, auditors_of(mirror, ref.key))),
    )


def after_writes(mirror: Mirror, seen: Observed) -> Observed:
    """With the children as the API server answered to our writes. Of strangers' objects nothing new is known."""
    strangers = {key: child for key, child in seen.children.items() if not is_ours(child, seen.ref.uid)}
    return replace(seen, children={**strangers, **_children(mirror, seen.ref.key)})


def ref_of(document: Manifest) -> PoolRef:
    """Which pool, in which version."""
    metadata = document["metadata"]
    return PoolRef(metadata["namespace"], metadata["name"], metadata["uid"], str(metadata.get("resourceVersion", "")))


def gateways_of(mirror: Mirror, key: str) -> tuple[Manifest, ...]:
    """The gateway pods of a pool."""
    return _pods(mirror, key, GATEWAY)


def auditors_of(mirror: Mirror, key: str) -> tuple[Manifest, ...]:
    """The auditor's pods: one, or while it is replaced perhaps two."""
    return _pods(mirror, key, AUDITOR)


def _pods(mirror: Mirror, key: str, component: str) -> tuple[Manifest, ...]:
    pods = mirror.belongings(key, POD)
    return tuple(pod for pod in pods if pod["metadata"].get("labels", {}).get(COMPONENT_LABEL) == component)


def _children(mirror: Mirror, key: str) -> dict[ChildKey, ChildSeen]:
    return {
        (kind.kind, item["metadata"]["name"]): _to_child(kind, item, mirror.is_as_applied(item))
        for kind in CHILD_KINDS
        for item in mirror.belongings(key, kind)
    }


def _to_child(kind: ResourceKind, item: Manifest, as_applied: bool = False) -> ChildSeen:
    """Lists leave out what kind their items are."""
    metadata = item["metadata"]
    owners = [owner["uid"] for owner in metadata.get("ownerReferences", ()) if owner.get("controller")]
    manifest = {"apiVersion": kind.api_version, "kind": kind.kind, **item}
    owner = owners[0] if owners else None
    return ChildSeen(manifest, metadata["uid"], owner, "deletionTimestamp" in metadata, as_applied)


async def _find_unserved(api: KubeApi, desired: DesiredPool, seen: Observed) -> frozenset[str]:
    """Kinds of children that are wanted, not there, and unknown to this cluster."""
    optional = [one for one in desired.children if not CHILD_KIND[one["kind"]].everywhere_served]
    unserved = set()
    for manifest in optional:
        kind, metadata = CHILD_KIND[manifest["kind"]], manifest["metadata"]
        if key_of(manifest) in seen.children:
            continue
        try:
            await api.list(kind.path(metadata["namespace"]), f"metadata.name={metadata['name']}")
        except NotFound:
            unserved.add(kind.kind)
    return frozenset(unserved)


async def _find_missing(
    api: KubeApi, mirror: Mirror, desired: DesiredPool, seen: Observed
) -> dict[ChildKey, ChildSeen]:
    """Objects that have the name of a child and are not known as one: a stranger's, another pool's, or stripped of
    their labels by hand."""
    missing = [manifest for manifest in desired.children if key_of(manifest) not in seen.children]
    found = await asyncio.gather(*(_find(api, mirror, manifest) for manifest in missing))
    return {key_of(child.manifest): child for child in found if child is not None}


async def _find(api: KubeApi, mirror: Mirror, manifest: Manifest) -> ChildSeen | None:
    kind, metadata = CHILD_KIND[manifest["kind"]], manifest["metadata"]
    namespace, name = metadata["namespace"], metadata["name"]
    item = mirror.find(kind, namespace, name)
    if item is None:
        try:
            item = await api.get(kind.path(namespace, name))
        except NotFound:
            return None
        mirror.take(kind, item)
    return _to_child(kind, item)


def _short_ones(seen: Observed) -> tuple[list[ChildSeen], list[ChildSeen]]:
    """Workloads that are short of pods: those that serve, and the auditor, which holds nobody up."""
    short = [child for child in seen.children.values() if is_short(child)]
    auditor = [one for one in short if one.manifest["metadata"].get("labels", {}).get(COMPONENT_LABEL) == AUDITOR]
    return [one for one in short if one not in auditor], auditor


async def _find_starved(api: KubeApi, ref: PoolRef, short: list[ChildSeen]) -> tuple[Trouble, ...]:
    """Why pods cannot be created; events are only asked for while some are missing."""
    events = {
        child.uid: await api.list(EVENT.path(ref.namespace), f"involvedObject.uid={child.uid},reason={FAILED_CREATE}")
        for child in short
    }
    return find_starved(short, events)


async def _mount_events(api: KubeApi, ref: PoolRef) -> list[Manifest]:
    """Volumes that could not be mounted: one list for all pods, only asked for while some wait for their containers."""
    return await api.list(EVENT.path(ref.namespace), f"involvedObject.kind=Pod,reason={FAILED_MOUNT}")


async def find_profile(api: KubeApi, mirror: Mirror, document: Manifest) -> str | Problem:
    """The profile's text: from the ConfigMap that the spec names, else the builtin model's own.

    Raises:
        ApiError: see `errors`.
    """
    namespace, name = document["metadata"]["namespace"], profile_name(document)
    if name is None:
        return _builtin_profile(str(document.get("spec", {}).get("model", {}).get("source", "")))
    found = mirror.find(CONFIG_MAP, namespace, name)
    if found is None:
        try:
            found = await api.get(CONFIG_MAP.path(namespace, name))
        except NotFound:
            return Problem(PROFILE_MISSING, f"profileRef: there is no ConfigMap {name!r} in namespace {namespace!r}")
        mirror.take(CONFIG_MAP, found)
    text = (found.get("data") or {}).get(PROFILE_KEY)
    if text is None:
        return Problem(PROFILE_MISSING, f"profileRef: ConfigMap {name!r} has no key {PROFILE_KEY!r}")
    return str(text)


@functools.cache
def _builtin_profile(source: str) -> str | Problem:
    folder = builtin_folder(source)
    if folder is not None and (folder / PROFILE_KEY).is_file():
        return (folder / PROFILE_KEY).read_text()
    text = "measure one with t2ictl profile, put it into a ConfigMap as profile.json and name it in profileRef"
    return Problem(PROFILE_MISSING, f"profileRef: model {source!r} comes without a profile; {text}")
