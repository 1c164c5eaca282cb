"""Pod templates: how the owner's overrides are merged into a pod that we render: of a worker, a gateway, an auditor.

`template` is flat. Some keys concern our container; `labels` and `annotations` concern the pod's metadata. Every other
key is a field of the pod's spec:

    labels, annotations               added; ours (t2iserving.dev/*, app.kubernetes.io/*) stay as they are
    image, imagePullPolicy, resources, workingDir, envFrom   of our container: replaced
    env (by name), volumeMounts (by mountPath)      of our container: merged, theirs wins
    extraArgs                         appended to our command line
    containers, initContainers, volumes, imagePullSecrets, hostAliases   merged by their key, theirs wins
    topologySpreadConstraints         merged by topologyKey and whenUnsatisfiable, theirs wins
    tolerations                       appended
    maps such as nodeSelector, securityContext, affinity    merged key by key, null removes
    anything else                     replaced

What the operator needs as it is was refused before (`t2i_api.template_rules`). Nothing here restarts a pod unless
the owner changes the template.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from t2i_api.audits import AuditsPart
from t2i_api.gateway import GatewayPart
from t2i_api.names import AUDITOR, GATEWAY, GROUP, WORKER
from t2i_api.pool import WorkerGroupPart
from t2i_operator.errors import TemplateInvalid
from t2i_operator.manifests.child import Manifest

_CONTAINER = ("image", "imagePullPolicy", "resources", "workingDir", "env", "envFrom", "volumeMounts")
#: What tells the entries of a list apart: for the API server as well, which refuses two with the same.
_KEYED: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_APPENDED = ("tolerations",)
_OURS = (f"{GROUP}/", "app.kubernetes.io/")


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the owner wrote, for which container, and the field of the pool's spec where it stands."""

    template: Mapping[str, Any]
    container: str
    field: str


def of_group(group: WorkerGroupPart) -> Overrides:
    """The template of a worker group."""
    return Overrides(group.template.overrides, WORKER, f"workerGroups: template of {group.name!r}")


def of_gateway(gateway: GatewayPart) -> Overrides:
    """The template of the gateway."""
    return Overrides(gateway.template.overrides, GATEWAY, "gateway.template")


def of_auditor(audits: AuditsPart) -> Overrides:
    """The template of the auditor."""
    return Overrides(audits.template.overrides, AUDITOR, "quality.template")


def merge_template(pod: Manifest, overrides: Overrides) -> Manifest:
    """A new pod template with the overrides in it.

    Raises:
        TemplateInvalid: a value of the wrong kind; names the field.
    """
    merged = deepcopy(pod)
    container = next(one for one in merged["spec"]["containers"] if one["name"] == overrides.container)
    try:
        for key, value in overrides.template.items():
            _merge(merged, container, key, value)
    except TemplateInvalid as error:
        raise TemplateInvalid(f"{overrides.field}: {error}") from error
    return merged


def _merge(merged: Manifest, container: Manifest, key: str, value: Any) -> None:
    if key in ("labels", "annotations"):
        merged["metadata"][key] = _merge_marks(key, merged["metadata"].get(key, {}), value)
    elif key == "extraArgs":
        container["args"] = [*container["args"], *_list(key, value)]
    elif key in _CONTAINER:
        _set(container, key, value)
    else:
        _set(merged["spec"], key, value)


def _merge_marks(key: str, ours: Mapping[str, str], theirs: Any) -> dict[str, str]:
    if not isinstance(theirs, Mapping) or not all(isinstance(value, str) for value in theirs.values()):
        raise TemplateInvalid(f"{key} must map names to texts")
    return {**{name: value for name, value in theirs.items() if not name.startswith(_OURS)}, **ours}


def _set(target: Manifest, key: str, value: Any) -> None:
    if value is None:
        target.pop(key, None)
    elif key in _KEYED:
        target[key] = _merge_keyed(key, target.get(key, []), _list(key, value))
    elif key in _APPENDED:
        target[key] = [*target.get(key, []), *_list(key, value)]
    elif isinstance(value, Mapping) and isinstance(target.get(key, {}), Mapping) and key != "resources":
        target[key] = merge_maps(target.get(key, {}), value)
    else:
        target[key] = deepcopy(value)


def merge_maps(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Manifest:
    """Key by key, maps inside maps too; null removes a key."""
    merged: Manifest = dict(ours)
    for key, value in theirs.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge_maps(merged[key], value)
        else:
            merged[key] = deepcopy(value)
    return merged


def _merge_keyed(key: str, ours: Sequence[Manifest], theirs: Sequence[Any]) -> list[Manifest]:
    """Entries with a known key merge, others are added at the end."""
    parts = _KEYED[key]
    merged = {tuple(one[part] for part in parts): one for one in ours}
    for one in theirs:
        if not isinstance(one, Mapping) or not all(isinstance(one.get(part), str) for part in parts):
            raise TemplateInvalid(f"{key}: every entry needs {' and '.join(map(repr, parts))}")
        name = tuple(one[part] for part in parts)
        merged[name] = merge_maps(merged.get(name, {}), one)
    return list(merged.values())


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TemplateInvalid(f"{key} must be a list")
    return value
