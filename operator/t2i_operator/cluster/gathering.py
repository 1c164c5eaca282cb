"""Gather: one look at a pool, all facts at once, out of what was read of it; what has changed since is read first.

What was seen may be a moment old when it is acted on; that is why every write names the UID that it is meant for.
"""

import asyncio
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from t2i_api.names import COMPONENT_LABEL, GATEWAY, WORKER
from t2i_operator.children import Images
from t2i_operator.cluster.api import KubeApi
from t2i_operator.cluster.kinds import CHILD_KIND, CHILD_KINDS, EVENT, POD, ResourceKind
from t2i_operator.cluster.known import PoolMemory, profile_name
from t2i_operator.cluster.remembering import Memory
from t2i_operator.deciding.children import key_of
from t2i_operator.deciding.mounting import FAILED_MOUNT, find_unmounted, is_creating, name_fields, tell_unmounted
from t2i_operator.deciding.observed import ChildKey, ChildSeen, DemandReport, DesiredPool, Observed, Problem
from t2i_operator.deciding.pods import read_pod
from t2i_operator.deciding.starving import FAILED_CREATE, find_starved, is_short
from t2i_operator.deciding.wanting import PROFILE_MISSING, want
from t2i_operator.errors import NotFound
from t2i_operator.manifests import Manifest, PoolRef
from t2i_sources import builtin_folder

PROFILE_KEY = "profile.json"


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was seen, and what the spec wants."""

    seen: Observed
    wanted: DesiredPool | Problem
    gateways: tuple[Manifest, ...]
    creating: bool = False  # some pod waits for its containers to be made


async def gather(api: KubeApi, memory: Memory, key: str, images: Images, reports: tuple[DemandReport, ...]) -> Gathered:
    """See the module.

    Raises:
        NotFound: the pool is gone.
        ApiError: see `errors`.
    """
    known = await memory.read(key)
    document = known.document
    if document is None:
        raise NotFound(404, f"{key}: no such pool")
    ref = ref_of(document)
    wanted = want(ref, document, find_profile(ref, known), images)
    children = seen_children(known)
    if isinstance(wanted, DesiredPool):
        children |= await _unlabelled(api, memory, key, wanted, children)
    pods = known.listed(POD.kind)
    gateways = tuple(pod for pod in pods if _component(pod) == GATEWAY)
    short = [child for child in children.values() if is_short(child)]
    starved = find_starved(short, {child.uid: await _events_of(api, child) for child in short})
    seen = replace(observe(document, children, pods, reports), starved=starved)
    creating = [pod for pod in pods if is_creating(pod)]
    seen = tell_unmounted(seen, find_unmounted(creating, await _mount_events(api, ref) if creating else ()))
    return Gathered(name_fields(seen, wanted), wanted, gateways, bool(creating))


def observe(
    document: Manifest,
    children: Mapping[ChildKey, ChildSeen],
    pods: Sequence[Manifest],
    reports: tuple[DemandReport, ...],
) -> Observed:
    """The facts as the decisions take them."""
    return Observed(
        ref=ref_of(document),
        generation=document["metadata"].get("generation", 0),
        status=document.get("status") or {},
        deleting="deletionTimestamp" in document["metadata"],
        children=children,
        workers=tuple(read_pod(pod) for pod in pods if _component(pod) == WORKER),
        gateways=tuple(read_pod(pod) for pod in pods if _component(pod) == GATEWAY),
        reports=reports,
    )


def ref_of(document: Manifest) -> PoolRef:
    """Which pool, in which version."""
    metadata = document["metadata"]
    return PoolRef(metadata["namespace"], metadata["name"], metadata["uid"], str(metadata.get("resourceVersion", "")))


def seen_without_reading(known: PoolMemory) -> Observed | None:
    """What is known already, to tell why more cannot be read; None if not even the pool is known."""
    if known.document is None:
        return None
    return observe(known.document, seen_children(known), known.listed(POD.kind), ())


async def _events_of(api: KubeApi, child: ChildSeen) -> list[Manifest]:
    """Why its pods cannot be created; only asked while some are missing."""
    fields = f"involvedObject.uid={child.uid},reason={FAILED_CREATE}"
    events = await api.list(EVENT.path(child.manifest["metadata"]["namespace"]), fields=fields)
    found: list[Manifest] = events["items"]
    return found


async def _mount_events(api: KubeApi, ref: PoolRef) -> list[Manifest]:
    """Volumes that could not be mounted: one list for all pods, only asked while some wait for their containers."""
    events = await api.list(EVENT.path(ref.namespace), fields=f"involvedObject.kind=Pod,reason={FAILED_MOUNT}")
    found: list[Manifest] = events["items"]
    return found


def seen_children(known: PoolMemory) -> dict[ChildKey, ChildSeen]:
    """The children that are known now."""
    return {
        (kind.kind, item["metadata"]["name"]): to_child(kind, item, known.is_as_answered(item))
        for kind in CHILD_KINDS
        for item in known.listed(kind.kind)
    }


def to_child(kind: ResourceKind, item: Manifest, as_answered: bool = False) -> ChildSeen:
    """Lists leave out what kind their items are."""
    metadata = item["metadata"]
    owners = [owner["uid"] for owner in metadata.get("ownerReferences", ()) if owner.get("controller")]
    manifest = {"apiVersion": kind.api_version, "kind": kind.kind, **item}
    owner = owners[0] if owners else None
    return ChildSeen(manifest, metadata["uid"], owner, "deletionTimestamp" in metadata, as_answered)


def _component(pod: Manifest) -> str | None:
    component: str | None = pod["metadata"].get("labels", {}).get(COMPONENT_LABEL)
    return component


async def _unlabelled(
    api: KubeApi, memory: Memory, key: str, wanted: DesiredPool, known: dict[ChildKey, ChildSeen]
) -> dict[ChildKey, ChildSeen]:
    """Children that are not known: new pools have none, other ones were stripped by hand, or are somebody else's."""
    missing = [manifest for manifest in wanted.children if key_of(manifest) not in known]
    found = await asyncio.gather(*(_find(api, memory, key, manifest) for manifest in missing))
    return {key_of(child.manifest): child for child in found if child is not None}


async def _find(api: KubeApi, memory: Memory, key: str, manifest: Manifest) -> ChildSeen | None:
    kind, metadata = CHILD_KIND[manifest["kind"]], manifest["metadata"]
    try:
        item = await api.get(kind.path(metadata["namespace"], metadata["name"]))
    except NotFound:
        return None
    memory.keep(key, kind.kind, item)
    return to_child(kind, item)


def find_profile(ref: PoolRef, known: PoolMemory) -> str | Problem:
    """The profile's text: from the ConfigMap that the spec names, else the builtin model's own."""
    name = profile_name(known.document)
    if name is None:
        spec = (known.document or {}).get("spec", {})
        return _builtin_profile(str(spec.get("model", {}).get("source", "")))
    if known.profile is None:
        return Problem(PROFILE_MISSING, f"profileRef: there is no ConfigMap {name!r} in namespace {ref.namespace!r}")
    text = (known.profile.get("data") or {}).get(PROFILE_KEY)
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
