"""What pods of gateways, workers and auditors have in common.

Restricted Pod Security: nothing runs as root, gains privileges or writes to its image. `/tmp` and mounted volumes are
the only places to write.

The operator names Secrets and never reads them. They are mounted as optional: else a pod would wait in silence for a
missing one. So the process itself tells of it, in words that reach the pool's conditions. Contents that change reach
the files within about a minute and are taken up there; another name rolls the pods.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import yaml

from t2i_api.model import ModelPart
from t2i_api.names import API_VERSION, GATEWAY, KIND, config_name
from t2i_operator.manifests.child import Images, Inputs, Manifest, child

USER = 65532
READABLE = 0o440  # by the pod's group: the process is neither root nor the owner
CONFIG_FOLDER = "/etc/t2i"
SECURITY_FOLDER = "/etc/t2i-security"
MODELS_FOLDER = "/models"
LOAD_LIMIT_S = 3600  # weights may come over a slow line
CLOSE_S = 10  # after the drain: closing connections, the interpreter's end

POD_SECURITY: Manifest = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
ENVIRONMENT: tuple[Manifest, ...] = (
    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    {"name": "HOME", "value": "/tmp"},  # noqa: S108
    {"name": "PYTHONUNBUFFERED", "value": "1"},
)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of the container; `source` is what kind of volume it is."""

    name: str
    path: str
    source: Manifest
    read_only: bool = False

    @property
    def volume(self) -> Manifest:
        """For the pod."""
        return {"name": self.name, **self.source}

    @property
    def mount(self) -> Manifest:
        """For the container."""
        return {"name": self.name, "mountPath": self.path, **({"readOnly": True} if self.read_only else {})}


#: Fields that came later, by the part of the spec that they are in.
LATER_FIELDS: Mapping[str, tuple[str, ...]] = {
    "": ("provenance", "safety", "quality"),
    "provenance": ("c2pa",),
    "model": ("embedder", "sizes", "adapters", "components", "compile", "attention", "previewDecoder"),
    "gateway": ("http", "playground", "qualities", "rateLimits", "route", "ingress", "results"),
}
OUTSIDE_FIELDS = ("route", "ingress")  # of the gateway; gateways know nothing of who leads clients to them
#: Room for libraries that insist on writing.
TMP = Folder("tmp", "/tmp", {"emptyDir": {}})  # noqa: S108 - a mount point inside the pod


def config_folder(pool: str) -> Folder:
    """The pool document and the profile."""
    return Folder("config", CONFIG_FOLDER, {"configMap": {"name": config_name(pool)}}, read_only=True)


def models_folder(source: str) -> Folder:
    """A `pvc://CLAIM/PATH` source is a claim; other sources need at most a folder to download to."""
    scheme, _, rest = source.partition("://")
    if scheme != "pvc":
        return Folder("models", MODELS_FOLDER, {"emptyDir": {}})
    claim = rest.partition("/")[0]
    volume = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    return Folder("models", f"{MODELS_FOLDER}/{claim}", volume, read_only=True)


def model_sources(model: ModelPart) -> Iterator[str]:
    """Where a model is, and all that is loaded beside it."""
    yield from (model.source, model.preview_decoder)
    yield from (adapter.source for adapter in model.adapters)
    for component in model.components:
        yield from filter(None, (component.source, component.image_encoder))


def models_folders(model: str, further: Iterable[str]) -> list[Folder]:
    """Of the model, and of further sources where those lie elsewhere."""
    sources = [model, *(source for source in further if source.startswith(("hf://", "pvc://")))]
    found = {folder.path: folder for folder in map(models_folder, sources)}
    first, *others = found.values()
    return [first, *(replace(other, name=f"models-{number}") for number, other in enumerate(others, 2))]


def secret_folders(named: Mapping[str, str]) -> list[Folder]:
    """Secrets by the name of their volume; those without a name are left out.

    Whole folders: files that are mounted one by one are never updated.
    """
    return [
        Folder(
            volume,
            f"{SECURITY_FOLDER}/{volume}",
            {"secret": {"secretName": secret, "optional": True, "defaultMode": READABLE}},
            read_only=True,
        )
        for volume, secret in named.items()
        if secret
    ]


def grpc_probe(port: int, period_s: int, failures: int, service: str = "") -> Manifest:
    """Ask grpc.health.v1; `failures` in a row count."""
    grpc: Manifest = {"port": port, **({"service": service} if service else {})}
    return {"grpc": grpc, "periodSeconds": period_s, "timeoutSeconds": 2, "failureThreshold": failures}


def pull_secrets(images: Images) -> Manifest:
    """The pod's pull secrets, if any."""
    return {"imagePullSecrets": [{"name": name} for name in images.pull_secrets]} if images.pull_secrets else {}


def disruption_budget(inputs: Inputs, component: str, name: str, selector: Mapping[str, str]) -> Manifest:
    """One at a time; pods that do not serve hold nobody up."""
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": dict(selector)},
    }
    return child(inputs.ref, component, "policy/v1", "PodDisruptionBudget", {"name": name, "spec": spec})


def render_config(inputs: Inputs) -> Manifest:
    """The ConfigMap: the pool document and the profile, as processes read them at their start."""
    data = {"pool.yaml": yaml.safe_dump(pool_document(inputs), sort_keys=True), "profile.json": inputs.profile}
    return child(inputs.ref, GATEWAY, "v1", "ConfigMap", {"name": config_name(inputs.ref.name), "data": data})


def pool_document(inputs: Inputs) -> Manifest:
    """Without what no process reads: pod templates, routes, and the mix, which arrives as a plan. Only whether workers
    may move is theirs to know.
    """
    spec = inputs.spec.model_dump(by_alias=True, mode="json", exclude_none=True, exclude={"mix": True})
    asked = inputs.spec.model_dump(by_alias=True, mode="json", exclude_defaults=True)
    for part_name, names in LATER_FIELDS.items():
        part, own = (spec.get(part_name, {}), asked.get(part_name, {})) if part_name else (spec, asked)
        for name in {*names} - {*own}:
            part.pop(name, None)  # as before there was the field: pods of an older version can still read it
    if inputs.spec.mix.moves != "None":
        spec["mix"] = {"moves": inputs.spec.mix.moves}
    for part in (spec["gateway"], spec.get("quality", {}), *spec["workerGroups"]):
        part.pop("template", None)
    for name in OUTSIDE_FIELDS:
        spec["gateway"].pop(name, None)
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": inputs.ref.name}, "spec": spec}
