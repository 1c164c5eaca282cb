"""What pods of gateways and workers have in common: restricted Pod Security, the config volume, probes, times.

Nothing runs as root, gains privileges or writes to its image: `/tmp` and mounted volumes are the only places to write.
"""

from t2i_api.names import config_name
from t2i_operator.children.inputs import Images
from t2i_operator.manifests import Manifest

USER = 65532
CONFIG_FOLDER = "/etc/t2i"
CLOSE_S = 10  # after the drain: closing connections, the interpreter's end


def pod_security() -> Manifest:
    """Of the pod; the restricted standard."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Manifest:
    """Of each container; the restricted standard and a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def config_volume(pool: str) -> Manifest:
    """The pool document and the profile."""
    return {"name": "config", "configMap": {"name": config_name(pool)}}


def config_mount() -> Manifest:
    """See `config_volume`."""
    return {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True}


def tmp_volume() -> Manifest:
    """Room for libraries that insist on writing."""
    return {"name": "tmp", "emptyDir": {}}


def tmp_mount() -> Manifest:
    """See `tmp_volume`."""
    return {"name": "tmp", "mountPath": "/tmp"}  # noqa: S108 - a mount point inside the pod


def environment() -> list[Manifest]:
    """The pod's name, a home to write to, and logs that are not held back."""
    return [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "HOME", "value": "/tmp"},  # noqa: S108
        {"name": "PYTHONUNBUFFERED", "value": "1"},
    ]


def grpc_probe(port: int, period_s: int, failures: int, service: str = "") -> Manifest:
    """Ask grpc.health.v1; `failures` in a row count."""
    grpc: Manifest = {"port": port, **({"service": service} if service else {})}
    return {"grpc": grpc, "periodSeconds": period_s, "timeoutSeconds": 2, "failureThreshold": failures}


def pull(images: Images) -> Manifest:
    """The pod's pull secrets, if any."""
    return {"imagePullSecrets": [{"name": name} for name in images.pull_secrets]} if images.pull_secrets else {}
