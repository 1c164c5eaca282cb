"""Children: which to write, which to delete, and which names belong to somebody else.

An object is ours if the pool's UID owns it. It is also ours if nobody controls it and our annotation names that UID
(somebody stripped the owner reference). An object of the same name that is not ours is never touched: it may belong to
a pool that was deleted a moment ago, or to a person.

A spec that the API server answered to the same manifest is as it should be. It need not say what we said: the server
leaves out empty values, and admission may rewrite images. Writing it once more would change nothing, for ever.

The API server adds defaults and other controllers add fields, so a live object may say more than we rendered. It must
not say less or otherwise. Quantities are compared by value ("1000m" is "1").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from t2i_api.names import HASH_ANNOTATION, POOL_UID_ANNOTATION
from t2i_operator.decide.types import Apply, ApplyReason, ChildKey, ChildSeen, Delete
from t2i_operator.manifests.child import Manifest


@dataclass(frozen=True, slots=True)
class ChildrenDecision:
    """Writes and deletions, and of those in the way `KIND/NAME` and whose they are."""

    applies: tuple[Apply, ...]
    deletes: tuple[Delete, ...]
    in_the_way: tuple[str, ...]


def decide_children(uid: str, desired: Sequence[Manifest], seen: Mapping[ChildKey, ChildSeen]) -> ChildrenDecision:
    """Compare what should be with what is."""
    applies: list[Apply] = []
    in_the_way: list[str] = []
    for manifest in desired:
        key = key_of(manifest)
        there = seen.get(key)
        if there is not None and (there.deleting or not is_ours(there, uid)):
            in_the_way.append("/".join(key) + _whose(there, uid))
            continue
        reason = _reason(manifest, there)
        if reason is not None:
            applies.append(Apply(manifest, reason, there.uid if there else None))
    keep = {key_of(manifest) for manifest in desired}
    deletes = tuple(
        Delete(kind, name, child.uid)
        for (kind, name), child in seen.items()
        if (kind, name) not in keep and is_ours(child, uid) and not child.deleting
    )
    return ChildrenDecision(tuple(applies), deletes, tuple(in_the_way))


def key_of(manifest: Manifest) -> ChildKey:
    """Kind and name."""
    return manifest["kind"], manifest["metadata"]["name"]


def is_ours(child: ChildSeen, uid: str) -> bool:
    """By its owner; without one, by our annotation."""
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
    specified = there.as_applied or says_all(there.manifest, body)
    return None if marked and owned and specified else ApplyReason.DRIFTED


def says_all(live: Any, desired: Any) -> bool:
    """True if everything in `desired` is in `live`. Lists must have the same length and order."""
    if isinstance(desired, Mapping):
        if not isinstance(live, Mapping):
            return not desired
        return all(says_all(live.get(key), value) for key, value in desired.items())
    if isinstance(desired, Sequence) and not isinstance(desired, str):
        if not isinstance(live, Sequence) or isinstance(live, str):
            return not desired
        return len(live) == len(desired) and all(says_all(one, other) for one, other in zip(live, desired, strict=True))
    if live is None and desired == "":
        return True
    return bool(live == desired) or _same_quantity(live, desired)


def _same_quantity(live: Any, desired: Any) -> bool:
    one, other = _quantity(live), _quantity(desired)
    return one is not None and one == other


def _quantity(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        return None
    try:
        parsed: Decimal = parse_quantity(value)  # type: ignore[no-untyped-call]
    except ValueError:
        return None
    return parsed
