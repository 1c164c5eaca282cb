"""Worker group templates: how the owner's overrides are merged into the pod that we render.

`template` is flat. Some keys concern the worker's container, `labels` and `annotations` the pod's metadata, every other
key is a field of the pod's spec:

    labels, annotations               added; ours (t2iserving.dev/*, app.kubernetes.io/*) stay as they are
    image, imagePullPolicy, resources, workingDir   of the worker's container: replaced
    env (by name), volumeMounts (by mountPath)      of the worker's container: merged, theirs wins
    extraArgs                         appended to the worker's command line
    containers, initContainers, volumes, imagePullSecrets, hostAliases   merged by their key, theirs wins
    tolerations, topologySpreadConstraints          appended
    maps such as nodeSelector, securityContext, affinity    merged key by key, null removes
    anything else                     replaced

The worker's container itself is reached by the keys above, not through `containers`. Nothing here restarts a pod unless
the owner changes the template.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from t2i_operator.errors import TemplateInvalid
from t2i_operator.manifests import Manifest
from t2i_operator.naming import GROUP, WORKER

_CONTAINER = ("image", "imagePullPolicy", "resources", "workingDir", "env", "volumeMounts")
_KEYED = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}
_APPENDED = ("tolerations", "topologySpreadConstraints")
_OURS = (f"{GROUP}/", "app.kubernetes.io/")
_FORBIDDEN = ("restartPolicy", "hostname", "subdomain", "ephemeralContainers")


def merge_template(pod: Manifest, template: Mapping[str, Any]) -> Manifest:
    """A new pod template with the overrides in it; see the module.

    Raises:
        TemplateInvalid: a value of the wrong kind, or a field that the StatefulSet needs as it is.
    """
    merged = deepcopy(pod)
    container = next(one for one in merged["spec"]["containers"] if one["name"] == WORKER)
    for key, value in template.items():
        if key in _FORBIDDEN:
            raise TemplateInvalid(f"template.{key} cannot be changed: remove it")
        if key in ("labels", "annotations"):
            merged["metadata"][key] = _merge_marks(key, merged["metadata"].get(key, {}), value)
        elif key == "extraArgs":
            container["args"] = [*container["args"], *_list(key, value)]
        elif key in _CONTAINER:
            _set(container, key, value)
        else:
            _refuse_worker(key, value)
            _set(merged["spec"], key, value)
    return merged


def _merge_marks(key: str, ours: Mapping[str, str], theirs: Any) -> dict[str, str]:
    if not isinstance(theirs, Mapping) or not all(isinstance(value, str) for value in theirs.values()):
        raise TemplateInvalid(f"template.{key} must map names to texts")
    return {**{name: value for name, value in theirs.items() if not name.startswith(_OURS)}, **ours}


def _refuse_worker(key: str, value: Any) -> None:
    if key == "containers" and any(isinstance(one, Mapping) and one.get("name") == WORKER for one in value):
        raise TemplateInvalid(
            f"template.containers must not name {WORKER!r}: use resources, env, volumeMounts, image of the template"
        )


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
    by = _KEYED[key]
    merged = {one[by]: one for one in ours}
    for one in theirs:
        if not isinstance(one, Mapping) or by not in one:
            raise TemplateInvalid(f"template.{key}: every entry needs {by!r}")
        merged[one[by]] = merge_maps(merged.get(one[by], {}), one)
    return list(merged.values())


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TemplateInvalid(f"template.{key} must be a list")
    return value
