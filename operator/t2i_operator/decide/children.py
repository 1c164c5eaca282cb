"""Children: which to write, which to delete, and which names belong to somebody else.

An object is ours if the pool's UID owns it, or if nobody controls it and our annotation names that UID (somebody
stripped the owner reference). An object of the same name that is not ours is never touched: it may belong to a pool
that was deleted a moment ago, or to a person.

A spec that the API server answered to the same manifest is as it should be, even if it does not say what we said: the
server leaves out empty values, and admission may rewrite images. Writing it once more would change nothing, for ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from t2i_api.names import HASH_ANNOTATION, POOL_UID_ANNOTATION
from t2i_operator.decide.actions import Apply, ApplyReason, Delete
from t2i_operator.decide.drift import says_all
from t2i_operator.decide.observed import ChildKey, ChildSeen
from t2i_operator.manifests.child import Manifest


@dataclass(frozen=True, slots=True)
class ChildrenDecision:
    """Writes and deletions, and of those in the way `KIND/NAME` and whose they are."""

    applies: tuple[Apply, ...]
    deletes: tuple[Delete, ...]
    in_the_way: tuple[str, ...]


def decide_children(uid: str, wanted: Sequence[Manifest], seen: Mapping[ChildKey, ChildSeen]) -> ChildrenDecision:
    """Compare what should be with what is."""
    applies: list[Apply] = []
    in_the_way: list[str] = []
    for manifest in wanted:
        key = key_of(manifest)
        there = seen.get(key)
        if there is not None and (there.deleting or not is_ours(there, uid)):
            in_the_way.append("/".join(key) + _whose(there, uid))
            continue
        reason = _reason(manifest, there)
        if reason is not None:
            applies.append(Apply(manifest, reason, there.uid if there else None))
    keep = {key_of(manifest) for manifest in wanted}
    deletes = tuple(
        Delete(child.manifest["apiVersion"], key[0], key[1], child.uid, "the spec does not ask for it any more")
        for key, child in seen.items()
        if key not in keep and is_ours(child, uid) and not child.deleting
    )
    return ChildrenDecision(tuple(applies), deletes, tuple(in_the_way))


def key_of(manifest: Manifest) -> ChildKey:
    """Kind and name."""
    return manifest["kind"], manifest["metadata"]["name"]


def is_ours(child: ChildSeen, uid: str) -> bool:
    """See the module."""
    if child.owner_uid is not None:
        return child.owner_uid == uid
    marks = child.manifest["metadata"].get("annotations") or {}
    return bool(marks.get(POOL_UID_ANNOTATION) == uid)


def _whose(child: ChildSeen, uid: str) -> str:
    """Such as ` (of T2IServingPool a-b)`: a pool `a` with a group `b-c` has the names of a pool `a-b` with `c`."""
    if is_ours(child, uid):
        return " (on its way out)"
    owners = [one for one in child.manifest["metadata"].get("ownerReferences") or () if one.get("controller")]
    return f" (of {owners[0]['kind']} {owners[0]['name']})" if owners else " (nobody's)"


def _reason(manifest: Manifest, there: ChildSeen | None) -> ApplyReason | None:
    if there is None:
        return ApplyReason.MISSING
    marks = there.manifest["metadata"].get("annotations") or {}
    if marks.get(HASH_ANNOTATION) != manifest["metadata"]["annotations"][HASH_ANNOTATION]:
        return ApplyReason.CHANGED
    metadata = manifest["metadata"]
    body = {key: value for key, value in manifest.items() if key != "metadata"}
    live_metadata = there.manifest["metadata"]
    marked = all(says_all(live_metadata.get(part), metadata[part]) for part in ("labels", "annotations"))
    owned = any(says_all(one, metadata["ownerReferences"][0]) for one in live_metadata.get("ownerReferences", ()))
    specified = there.as_answered or says_all(there.manifest, body)
    return None if marked and owned and specified else ApplyReason.DRIFTED
