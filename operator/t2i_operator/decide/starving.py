"""Starving: workloads whose controller cannot even create their pods, so that no pod tells why.

A Deployment says it in its condition ReplicaFailure, a StatefulSet only by events FailedCreate. Typical reasons: a
quota of the namespace (NoCapacity), an admission rule such as Pod Security (PodsRefused).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from t2i_operator.decide.observed import ChildSeen, Trouble, TroubleKind

FAILED_CREATE = "FailedCreate"
_QUOTA = "exceeded quota"


def is_short(child: ChildSeen) -> bool:
    """True if its controller has seen the spec and has made fewer pods than it asks for."""
    manifest = child.manifest
    if manifest["kind"] not in ("StatefulSet", "Deployment"):
        return False
    status, replicas = manifest.get("status", {}), manifest["spec"].get("replicas", 1)
    heard = status.get("observedGeneration", 0) >= manifest["metadata"].get("generation", 1)
    return bool(heard and status.get("replicas", 0) < replicas)


def find_starved(
    children: Sequence[ChildSeen], events: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[Trouble, ...]:
    """What keeps the pods of each short workload from being made; `events` by the workload's UID."""
    told = (_told(child, events.get(child.uid, ())) for child in children if is_short(child))
    return tuple(trouble for trouble in told if trouble is not None)


def _told(child: ChildSeen, events: Sequence[Mapping[str, Any]]) -> Trouble | None:
    messages = [*_conditions(child), *_latest(events)]
    if not messages:
        return None
    kind = TroubleKind.NO_CAPACITY if _QUOTA in messages[0] else TroubleKind.PODS_REFUSED
    return Trouble(kind, f"{child.manifest['metadata']['name']}: {messages[0]}")


def _conditions(child: ChildSeen) -> Iterator[str]:
    for one in child.manifest.get("status", {}).get("conditions", ()):
        if one.get("type") == "ReplicaFailure" and one.get("status") == "True":
            yield str(one.get("message", ""))


def _latest(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    failed = [event for event in events if event.get("reason") == FAILED_CREATE]
    for event in sorted(failed, key=lambda event: str(event.get("lastTimestamp") or ""), reverse=True):
        yield str(event.get("message", ""))
