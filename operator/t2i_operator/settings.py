"""Command line of the operator; every flag can also come from the environment as `T2I_` and its name in capitals."""

import argparse
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i_runtime.arguments import names

MAX_NUMBER = 86400.0
PULL_POLICIES = ("Always", "IfNotPresent", "Never")


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """One attribute for each flag. No namespaces = all."""

    namespaces: tuple[str, ...]
    gateway_image: str
    worker_image: str
    image_pull_policy: str
    image_pull_secrets: tuple[str, ...]
    metrics_listen: str
    health_listen: str
    lease_namespace: str
    lease_name: str
    identity: str
    kubeconfig: Path | None
    resync_s: float
    plan_every_s: float
    max_parallel: int
    log_level: str
    log_format: str


def parse_arguments(
    arguments: list[str] | None = None, environment: Mapping[str, str] | None = None
) -> OperatorSettings:
    """Parse argv, then the environment, then defaults; exits with a message on a mistake.

    Service accounts: the operator runs under its own (its pod's); each pool's gateway gets one of its own, which the
    operator creates together with a Role. A Role can only grant what the operator may do itself.
    """
    env = os.environ if environment is None else environment
    parser = argparse.ArgumentParser(prog="t2i-operator", description="Keeps every T2IServingPool as its spec says.")

    def flag(name: str, default: str, text: str, read: Callable[[str], Any] = str) -> None:
        variable = "T2I_" + name.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(name, default=env.get(variable, default), type=read, help=f"{text} [{variable}]")

    flag("--namespaces", "", "namespaces to watch, comma separated; empty = all", names)
    flag("--gateway-image", "t2i-serving/gateway:0.1.0", "image of gateways, best by digest")
    flag("--worker-image", "t2i-serving/worker:0.1.0", "image of workers, best by digest")
    flag("--image-pull-policy", "IfNotPresent", "of both: Always, IfNotPresent or Never", _one_of(*PULL_POLICIES))
    flag("--image-pull-secrets", "", "names of pull secrets in the pools' namespaces, comma separated", names)
    flag("--metrics-listen", "[::]:9090", "address of /metrics")
    flag("--health-listen", "[::]:8081", "address of /livez and /readyz")
    flag("--lease-namespace", "", "namespace of the leader's lease; empty = the pod's own")
    flag("--lease-name", "t2i-operator", "name of the leader's lease")
    flag("--identity", "", "this process in the lease; empty = the host name (in a pod: the pod's name)", _or_host_name)
    flag("--kubeconfig", "", "kubeconfig file; empty = the pod's service account, else the user's own", _file)
    flag("--resync-s", "300", "list everything and look at every pool this often, whatever is heard", _positive)
    flag("--plan-every-s", "2", "poll gateways for demand this often", _positive)
    flag("--max-parallel", "16", "pools that are reconciled at the same time", lambda text: int(_positive(text)))
    flag("--log-level", "info", "debug, info, warning or error", _one_of("debug", "info", "warning", "error"))
    flag("--log-format", "text", "text or json", _one_of("text", "json"))
    return OperatorSettings(**vars(parser.parse_args(arguments)))


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise argparse.ArgumentTypeError(f"one of {', '.join(allowed)}, not {text!r}")
        return text

    return read


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MAX_NUMBER:
        raise argparse.ArgumentTypeError(f"a number above 0, at most {MAX_NUMBER:.0f}, not {text!r}")
    return value


def _or_host_name(text: str) -> str:
    return text or socket.gethostname()


def _file(text: str) -> Path | None:
    return Path(text) if text else None
