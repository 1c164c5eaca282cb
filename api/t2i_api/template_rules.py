"""What of a pod template is the operator's, and the rules that keep it so.

Every message begins with the field and says what to do next.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic.alias_generators import to_snake

from t2i_api.rule import PoolRule
from t2i_api.template import PodTemplatePart

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
        "--listen-http",
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
        "--safety-prompt-dir",
        "--safety-image-dir",
        "--results-dir",
        "--c2pa-dir",
        "--auditor",
    ),
)
AUDITOR_OWNED = OwnedFields(
    _POD_FIELDS,
    "auditor",
    (
        "--pool",
        "--profile",
        "--corrections",
        "--listen",
        "--control-listen",
        "--metrics-listen",
        "--models-dir",
        "--tls-dir",
        "--gateway-name",
    ),
)
OWNED_VARIABLES = ("POD_NAME", "T2I_STORE_USER", "T2I_STORE_PASSWORD", "T2I_STORE_TLS_DIR")
OWNED_VOLUMES = (
    *("config", "tls", "tokens", "worker-tls", "store-tls"),
    *("safety-prompt", "safety-image", "results", "c2pa", "audits"),
)
OWNED_FOLDERS = "^/etc/t2i(-security|-store|-audits)?(/|$)"

VARIABLES_MESSAGE = (
    f"env must not set {', '.join(OWNED_VARIABLES)}, which are the operator's: remove the entry; "
    "spec.cache.storeSecretRef names the store's Secret"
)
VOLUMES_MESSAGE = f"volumes must not be called {', '.join(OWNED_VOLUMES)}, as the operator's are: choose another name"
FOLDERS_MESSAGE = (
    "volumeMounts must not be in /etc/t2i, /etc/t2i-security, /etc/t2i-store or /etc/t2i-audits, which are the "
    "operator's: choose another mountPath"
)
FLAGS_MESSAGE = "extraArgs must not repeat a flag that the operator sets: remove it, the pool's spec says it"


def containers_message(name: str) -> str:
    """For the kind of pod whose container is called so."""
    return (
        f"containers must not name {name!r}: use env, resources, volumeMounts and image of the template, or choose "
        "another name"
    )


def template_rules(owned: OwnedFields) -> tuple[PoolRule[PodTemplatePart], ...]:
    """What a template leaves alone because the operator needs it as it is."""
    return (
        *(_left_out(field, f"{field} {advice}") for field, advice in owned.fields.items()),
        PoolRule[PodTemplatePart](
            holds=lambda template: all(one.name != owned.container for one in template.containers or ()),
            cel=_each("containers", f"x.name != '{owned.container}'"),
            message=containers_message(owned.container),
            field=".containers",
        ),
        PoolRule[PodTemplatePart](
            holds=lambda template: all(one.name not in OWNED_VARIABLES for one in template.env or ()),
            cel=_each("env", f"!(x.name in {list(OWNED_VARIABLES)})"),
            message=VARIABLES_MESSAGE,
            field=".env",
        ),
        PoolRule[PodTemplatePart](
            holds=lambda template: all(one.name not in OWNED_VOLUMES for one in template.volumes or ()),
            cel=_each("volumes", f"!(x.name in {list(OWNED_VOLUMES)})"),
            message=VOLUMES_MESSAGE,
            field=".volumes",
        ),
        PoolRule[PodTemplatePart](
            holds=lambda template: (
                not any(re.search(OWNED_FOLDERS, one.mount_path) for one in template.volume_mounts or ())
            ),
            cel=_each("volumeMounts", f"!x.mountPath.matches('{OWNED_FOLDERS}')"),
            message=FOLDERS_MESSAGE,
            field=".volumeMounts",
        ),
        PoolRule[PodTemplatePart](
            holds=lambda template: all(text.partition("=")[0] not in owned.flags for text in template.extra_args or ()),
            cel=_each("extraArgs", f"!({list(owned.flags)}.exists(f, x == f || x.startsWith(f + '=')))"),
            message=FLAGS_MESSAGE,
            field=".extraArgs",
        ),
    )


def _left_out(field: str, message: str) -> PoolRule[PodTemplatePart]:
    name = to_snake(field)
    return PoolRule(lambda template: getattr(template, name) is None, f"!has(self.{field})", message, f".{field}")


def _each(field: str, condition: str) -> str:
    return f"!has(self.{field}) || self.{field}.all(x, {condition})"
