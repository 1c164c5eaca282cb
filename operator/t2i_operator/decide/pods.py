"""Pods: from the API's document to what matters of them, and why one is not ready.

    unschedulable                                   NoCapacity        what the scheduler says
    image cannot be pulled                          ImagePullFailed
    container cannot be made                        ContainerConfigFailed
    ended with an error, now or before its restart  LoadFailed        its last words; OutOfMemory if killed for it

A trouble holds until the pod is ready. So a container that fails, restarts and fails again does not flicker. Messages
leave out what changes from try to try.

Two troubles are told by events alone. A pod that waits for a volume is ContainerCreating, as while an image is pulled.
Most often it waits for a Secret that does not exist. And a workload whose controller cannot create its pods (a quota,
or an admission rule such as Pod Security) has no pod that could tell: a Deployment says it in its condition
ReplicaFailure, a StatefulSet by events FailedCreate. Events outlive what they told of, so those of other pods are not
asked for.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from t2i_api.names import AUDITOR, COMPONENT_LABEL, GATEWAY, GROUP_LABEL, LEVEL_LABEL
from t2i_api.pool import PoolSpec
from t2i_operator.decide.types import ChildSeen, DesiredPool, Observed, PodSeen, Problem, Trouble, TroubleKind

_PULLING = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_MAKING = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
MAX_WORDS = 500
_LAST_WORDS = re.compile(r"cannot start: (.*)", re.DOTALL)
FAILED_MOUNT = "FailedMount"
FAILED_CREATE = "FailedCreate"
_CREATING = {"ContainerCreating", "PodInitializing"}
_MISSING = re.compile(r'secret "(?P<name>[^"]+)" not found')
_VOLUME = re.compile(r'MountVolume.SetUp failed for volume "[^"]+" : ')
_QUOTA = "exceeded quota"
_TEMPLATES = {GATEWAY: "spec.gateway.template", AUDITOR: "spec.quality.template"}


def read_pod(document: Mapping[str, Any]) -> PodSeen:
    """A pod of the pool. One that is being deleted is not ready."""
    metadata = document["metadata"]
    labels = metadata.get("labels", {})
    deleting = "deletionTimestamp" in metadata
    ready = not deleting and _condition(document, "Ready").get("status") == "True"
    number = metadata["name"].rpartition("-")[2]
    return PodSeen(
        name=metadata["name"],
        uid=metadata["uid"],
        ready=ready,
        trouble=None if ready or deleting else find_trouble(document),
        level=labels.get(LEVEL_LABEL),
        group=labels.get(GROUP_LABEL),
        number=int(number) if number.isdigit() else None,
    )


def find_trouble(pod: Mapping[str, Any]) -> Trouble | None:
    """The first that applies."""
    name = pod["metadata"]["name"]
    for container in _containers(pod):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") in _PULLING:
            text = f"{name} cannot pull image {container.get('image', '')}: see kubectl describe pod {name}"
            return Trouble(TroubleKind.IMAGE_PULL_FAILED, text)
        if waiting.get("reason") in _MAKING:
            return Trouble(TroubleKind.CONFIG_FAILED, f"{name}: {waiting.get('message', waiting['reason'])}")
        ended = _ended(container)
        if ended is not None:
            return _failure(pod, ended)
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        return Trouble(TroubleKind.NO_CAPACITY, f"{name}: {scheduled.get('message', 'no node fits')}")
    return None


def _containers(pod: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses", ())
    yield from status.get("containerStatuses", ())


def _ended(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How its last run ended, if that was an error."""
    for state in (container.get("state", {}), container.get("lastState", {})):
        ended: Mapping[str, Any] | None = state.get("terminated")
        if ended is not None and ended.get("exitCode", 0) != 0:
            return ended
    return None


def _failure(pod: Mapping[str, Any], ended: Mapping[str, Any]) -> Trouble:
    name, component = pod["metadata"]["name"], pod["metadata"].get("labels", {}).get(COMPONENT_LABEL)
    if ended.get("reason") == "OOMKilled":
        where = _TEMPLATES.get(component, "the group's template")
        text = f"{name} was killed for its memory: raise resources.limits.memory in {where}"
        return Trouble(TroubleKind.OUT_OF_MEMORY, text)
    return Trouble(TroubleKind.LOAD_FAILED, f"{name}: {last_words(ended)}")


def last_words(ended: Mapping[str, Any]) -> str:
    """What the process said at its end: what follows "cannot start:", else its last line, else its exit code."""
    text = str(ended.get("message", "")).strip()
    found = _LAST_WORDS.search(text)
    if found is not None:
        return found.group(1).strip()[:MAX_WORDS]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][-MAX_WORDS:] if lines else f"ended with exit code {ended.get('exitCode')}"


def _condition(document: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    conditions = document.get("status", {}).get("conditions", ())
    return next((one for one in conditions if one.get("type") == kind), {})


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


def name_fields(seen: Observed, desired: DesiredPool | Problem) -> Observed:
    """With the field that names a missing Secret, and the next step, in the troubles of pods."""
    if isinstance(desired, Problem):
        return seen
    return _each(seen, lambda pod: _with_field(pod.trouble, desired.spec))


def _each(seen: Observed, told: Callable[[PodSeen], Trouble | None]) -> Observed:
    def tell(pods: tuple[PodSeen, ...]) -> tuple[PodSeen, ...]:
        return tuple(replace(pod, trouble=told(pod)) for pod in pods)

    return replace(seen, workers=tell(seen.workers), gateways=tell(seen.gateways), auditors=tell(seen.auditors))


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
    told = (_trouble_of(child, events.get(child.uid, ())) for child in children if is_short(child))
    return tuple(trouble for trouble in told if trouble is not None)


def _trouble_of(child: ChildSeen, events: Sequence[Mapping[str, Any]]) -> Trouble | None:
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
