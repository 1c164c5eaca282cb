"""Secrets in pods: how certificates and tokens are mounted, and the arguments that say where.

The operator names Secrets and never reads them. They are mounted as optional, so that a missing one is told by the
process itself, in words that reach the pool's conditions, rather than by a pod that waits in silence. Contents that
change reach the files within about a minute and are taken up there; another name rolls the pods.
"""

from dataclasses import dataclass

from t2i_api.names import gateway_name, workers_name
from t2i_operator.children.inputs import Inputs
from t2i_operator.manifests import Manifest

FOLDER = "/etc/t2i-security"
READABLE = 0o440  # by the pod's group: the process is neither root nor the owner


@dataclass(frozen=True, slots=True)
class Mounted:
    """One Secret in a pod; `flag` takes its folder."""

    volume: str
    secret: str
    flag: str

    @property
    def folder(self) -> str:
        """Where its keys are files."""
        return f"{FOLDER}/{self.volume}"


def gateway_secrets(inputs: Inputs) -> list[Mounted]:
    """What a gateway needs of those that the pool names."""
    part = inputs.spec.security
    return _named(
        Mounted("tls", part.gateway_tls_secret_name, "--tls-dir"),
        Mounted("tokens", part.tokens_secret_name, "--tokens-dir"),
        Mounted("worker-tls", part.gateway_client_tls_secret_name, "--worker-tls-dir"),
    )


def worker_secrets(inputs: Inputs) -> list[Mounted]:
    """What a worker needs."""
    return _named(Mounted("tls", inputs.spec.security.worker_tls_secret_name, "--tls-dir"))


def _named(*all_of_them: Mounted) -> list[Mounted]:
    return [one for one in all_of_them if one.secret]


def secret_volumes(secrets: list[Mounted]) -> list[Manifest]:
    """Of the pod."""
    return [
        {"name": one.volume, "secret": {"secretName": one.secret, "optional": True, "defaultMode": READABLE}}
        for one in secrets
    ]


def secret_mounts(secrets: list[Mounted]) -> list[Manifest]:
    """Of the container. Whole folders: files that are mounted one by one are never updated."""
    return [{"name": one.volume, "mountPath": one.folder, "readOnly": True} for one in secrets]


def gateway_arguments(inputs: Inputs) -> list[str]:
    """Where the Secrets are, and whom to expect behind a worker's address."""
    expected = [f"--worker-name={worker_dns(inputs)}"] if inputs.spec.security.workers_secured else []
    return [*(f"{one.flag}={one.folder}" for one in gateway_secrets(inputs)), *expected]


def worker_arguments(inputs: Inputs) -> list[str]:
    """Where the Secret is, and who may call."""
    allowed = [f"--gateway-name={gateway_dns(inputs)}"] if inputs.spec.security.workers_secured else []
    return [*(f"{one.flag}={one.folder}" for one in worker_secrets(inputs)), *allowed]


def gateway_dns(inputs: Inputs) -> str:
    """The name in gateways' certificates; also their Service's."""
    return f"{gateway_name(inputs.ref.name)}.{inputs.ref.namespace}.svc"


def worker_dns(inputs: Inputs) -> str:
    """The name in the certificates of all workers of the pool."""
    return f"{workers_name(inputs.ref.name)}.{inputs.ref.namespace}.svc"
