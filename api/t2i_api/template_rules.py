"""What of a pod template is the operator's: one table, for the check here and for the CEL rules of the resource.

Every message begins with the field and says what to do next.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_POD_FIELDS = {
    "metadata": "does not belong here: put labels and annotations directly into the template",
    "spec": "does not belong here: put the fields of the pod's spec directly into the template",
    "name": "is the operator's, as all names: remove it",
    "restartPolicy": "is always Always: remove it",
    "hostname": "is the operator's, as all names: remove it",
    "subdomain": "is the operator's, as all names: remove it",
    "terminationGracePeriodSeconds": "follows from spec.slo.latencyMilliseconds: remove it",
    "ephemeralContainers": "cannot be in a template: remove it, kubectl debug adds one to a pod",
    "command": "is the operator's: remove it, extraArgs adds flags",
    "args": "is the operator's: remove it, extraArgs adds flags",
    "ports": "is the operator's, Services and probes count on it: remove it",
    "livenessProbe": "is the operator's: remove it",
    "readinessProbe": "is the operator's: remove it",
    "startupProbe": "is the operator's: remove it",
    "lifecycle": "is the operator's, it lets requests end: remove it",
}
_ACCOUNT = "is the operator's, the gateway reads its pool and its workers with it: remove it"
_ACCOUNT_FIELDS = {
    "serviceAccountName": _ACCOUNT,
    "serviceAccount": _ACCOUNT,
    "automountServiceAccountToken": _ACCOUNT,
}


@dataclass(frozen=True, slots=True)
class OwnedFields:
    """Of one kind of pod: refused fields with the next step, the container's name, and the flags that are given."""

    fields: Mapping[str, str]
    container: str
    flags: tuple[str, ...]


WORKER_OWNED = OwnedFields(
    _POD_FIELDS,
    "worker",
    (
        "--pool",
        "--profile",
        "--group",
        "--name",
        "--listen",
        "--health-listen",
        "--metrics-listen",
        "--store",
        "--store-pool",
        "--own-store",
        "--models-dir",
        "--drain-s",
        "--tls-dir",
        "--gateway-name",
    ),
)
GATEWAY_OWNED = OwnedFields(
    {**_POD_FIELDS, **_ACCOUNT_FIELDS},
    "gateway",
    (
        "--pool",
        "--profile",
        "--kubernetes",
        "--listen",
        "--control-listen",
        "--metrics-listen",
        "--store",
        "--store-pool",
        "--models-dir",
        "--embedder",
        "--drain-s",
        "--tls-dir",
        "--tokens-dir",
        "--worker-tls-dir",
        "--worker-name",
    ),
)
OWNED_VARIABLES = ("POD_NAME", "T2I_STORE_USER", "T2I_STORE_PASSWORD", "T2I_STORE_TLS_DIR")
OWNED_VOLUMES = ("config", "tls", "tokens", "worker-tls", "store-tls")
OWNED_FOLDERS = "^/etc/t2i(-security|-store)?(/|$)"

VARIABLES_MESSAGE = (
    f"env must not set {', '.join(OWNED_VARIABLES)}, which are the operator's: remove the entry; "
    "spec.cache.storeSecretRef names the store's Secret"
)
VOLUMES_MESSAGE = f"volumes must not be called {', '.join(OWNED_VOLUMES)}, as the operator's are: choose another name"
FOLDERS_MESSAGE = (
    "volumeMounts must not be in /etc/t2i, /etc/t2i-security or /etc/t2i-store, which are the operator's: choose "
    "another mountPath"
)
FLAGS_MESSAGE = "extraArgs must not repeat a flag that the operator sets: remove it, the pool's spec says it"


def containers_message(name: str) -> str:
    """For the kind of pod whose container is called so."""
    return (
        f"containers must not name {name!r}: use env, resources, volumeMounts and image of the template, or choose "
        "another name"
    )


def check_template(template: Mapping[str, Any], owned: OwnedFields) -> None:
    """A template leaves alone what the operator needs as it is.

    Raises:
        ValueError: it does not.
    """
    for field, advice in owned.fields.items():
        if field in template:
            raise ValueError(f"{field} {advice}")
    if any(one["name"] == owned.container for one in template.get("containers", ())):
        raise ValueError(containers_message(owned.container))
    if any(one["name"] in OWNED_VARIABLES for one in template.get("env", ())):
        raise ValueError(VARIABLES_MESSAGE)
    if any(one["name"] in OWNED_VOLUMES for one in template.get("volumes", ())):
        raise ValueError(VOLUMES_MESSAGE)
    if any(re.search(OWNED_FOLDERS, one["mountPath"]) for one in template.get("volumeMounts", ())):
        raise ValueError(FOLDERS_MESSAGE)
    if any(text.partition("=")[0] in owned.flags for text in template.get("extraArgs", ())):
        raise ValueError(FLAGS_MESSAGE)
