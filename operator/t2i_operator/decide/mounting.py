"""Mounting: pods that wait for a volume, most often for a Secret that does not exist.

The kubelet says it by events FailedMount alone: the pod's status is ContainerCreating, as while an image is pulled. The
events of a pod that is ready, or waits for something else, are not asked for: they outlive what they told of.

Which field of the pool's spec has to do with a missing Secret is told from its name: `storeSecretRef`, one of
`spec.security`, or none: pods' templates may name others.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from t2i_api.pool import PoolSpec
from t2i_operator.decide.observed import DesiredPool, Observed, PodSeen, Problem, Trouble, TroubleKind

FAILED_MOUNT = "FailedMount"
_CREATING = {"ContainerCreating", "PodInitializing"}
_MISSING = re.compile(r'secret "(?P<name>[^"]+)" not found')
_VOLUME = re.compile(r'MountVolume.SetUp failed for volume "[^"]+" : ')


def is_creating(pod: Mapping[str, Any]) -> bool:
    """True if nothing but the making of its containers is waited for."""
    status, metadata = pod.get("status", {}), pod["metadata"]
    containers = (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ()))
    waiting = [one.get("state", {}).get("waiting", {}).get("reason") for one in containers]
    return "deletionTimestamp" not in metadata and bool(waiting) and set(waiting) <= _CREATING


def find_unmounted(creating: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> dict[str, Trouble]:
    """By the UID of a pod that waits for its containers, what the latest of its FailedMount events says."""
    found = {}
    for pod in creating:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        own = [event for event in events if event.get("involvedObject", {}).get("uid") == uid]
        if own:
            text = _VOLUME.sub("", str(max(own, key=_time).get("message", "")))
            found[uid] = Trouble(TroubleKind.CONFIG_FAILED, f"{name}: {text}")
    return found


def tell_unmounted(seen: Observed, unmounted: Mapping[str, Trouble]) -> Observed:
    """With these troubles of pods whose own status tells none."""
    return _each(seen, lambda pod: pod.trouble if pod.ready else pod.trouble or unmounted.get(pod.uid))


def name_fields(seen: Observed, wanted: DesiredPool | Problem) -> Observed:
    """With the field that names a missing Secret, and the next step, in the troubles of pods."""
    if isinstance(wanted, Problem):
        return seen
    return _each(seen, lambda pod: _with_field(pod.trouble, wanted.spec))


def _each(seen: Observed, told: Callable[[PodSeen], Trouble | None]) -> Observed:
    def tell(pods: tuple[PodSeen, ...]) -> tuple[PodSeen, ...]:
        return tuple(replace(pod, trouble=told(pod)) for pod in pods)

    return replace(seen, workers=tell(seen.workers), gateways=tell(seen.gateways))


def _time(event: Mapping[str, Any]) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")


def _with_field(trouble: Trouble | None, spec: PoolSpec) -> Trouble | None:
    found = _MISSING.search(trouble.message) if trouble is not None else None
    field = _field_of(found["name"], spec) if found is not None else None
    if trouble is None or field is None:
        return trouble
    return replace(trouble, message=f"{trouble.message}: create the Secret that {field} names, or correct the field")


def _field_of(secret: str, spec: PoolSpec) -> str | None:
    security, store = spec.security, spec.cache.store_secret_ref
    names = {
        "spec.cache.storeSecretRef": store.name if store is not None else "",
        "spec.security.gatewayTlsSecretName": security.gateway_tls_secret_name,
        "spec.security.tokensSecretName": security.tokens_secret_name,
        "spec.security.gatewayClientTlsSecretName": security.gateway_client_tls_secret_name,
        "spec.security.workerTlsSecretName": security.worker_tls_secret_name,
    }
    return next((field for field, name in names.items() if name == secret), None)
