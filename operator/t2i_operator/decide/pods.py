"""Pods: from the API's document to what matters of them, and why one is not ready.

    unschedulable                                   NoCapacity        what the scheduler says
    image cannot be pulled                          ImagePullFailed
    container cannot be made                        ContainerConfigFailed
    ended with an error, now or before its restart  LoadFailed        its last words; OutOfMemory if killed for it

A trouble holds until the pod is ready, so that a container that fails, restarts and fails again does not flicker.
Messages leave out what changes from try to try.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from t2i_api.names import GROUP_LABEL, LEVEL_LABEL
from t2i_operator.decide.observed import PodSeen, Trouble, TroubleKind

_PULLING = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
_MAKING = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
MAX_WORDS = 500
_LAST_WORDS = re.compile(r"cannot start: (.*)", re.DOTALL)


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
    """See the module; the first that applies."""
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
    name, group = pod["metadata"]["name"], pod["metadata"].get("labels", {}).get(GROUP_LABEL)
    if ended.get("reason") == "OOMKilled":
        where = "spec.gateway.template" if group is None else "the group's template"
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
