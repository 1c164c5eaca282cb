"""Command line of the operator; every flag can also come from the environment as `T2I_` and its name in capitals."""

import argparse
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from t2i_runtime.arguments import names

MAX_NUMBER = 86400.0


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

    def flag(name: str, default: str, text: str) -> None:
        variable = "T2I_" + name.removeprefix("--").replace("-", "_").upper()
        parser.add_argument(name, default=env.get(variable, default), help=f"{text} [{variable}]")

    flag("--namespaces", "", "namespaces to watch, comma separated; empty = all")
    flag("--gateway-image", "t2i-serving/gateway:0.1.0", "image of gateways, best by digest")
    flag("--worker-image", "t2i-serving/worker:0.1.0", "image of workers, best by digest")
    flag("--image-pull-policy", "IfNotPresent", "of both: Always, IfNotPresent or Never")
    flag("--image-pull-secrets", "", "names of pull secrets in the pools' namespaces, comma separated")
    flag("--metrics-listen", "[::]:9090", "address of /metrics")
    flag("--health-listen", "[::]:8081", "address of /livez and /readyz")
    flag("--lease-namespace", "", "namespace of the leader's lease; empty = the pod's own")
    flag("--lease-name", "t2i-operator", "name of the leader's lease")
    flag("--identity", "", "this process in the lease; empty = the host name (in a pod: the pod's name)")
    flag("--kubeconfig", "", "kubeconfig file; empty = the pod's service account, else the user's own")
    flag("--resync-s", "300", "look at every pool this often even if nothing was heard")
    flag("--plan-every-s", "2", "poll gateways for demand this often")
    flag("--max-parallel", "16", "pools that are reconciled at the same time")
    flag("--log-level", "info", "debug, info, warning or error")
    flag("--log-format", "text", "text or json")
    return _checked(parser, vars(parser.parse_args(arguments)))


def _checked(parser: argparse.ArgumentParser, given: Mapping[str, str]) -> OperatorSettings:
    if given["image_pull_policy"] not in ("Always", "IfNotPresent", "Never"):
        parser.error(f"--image-pull-policy: Always, IfNotPresent or Never, not {given['image_pull_policy']!r}")
    if given["log_level"] not in ("debug", "info", "warning", "error"):
        parser.error(f"--log-level: debug, info, warning or error, not {given['log_level']!r}")
    if given["log_format"] not in ("text", "json"):
        parser.error(f"--log-format: text or json, not {given['log_format']!r}")
    return OperatorSettings(
        namespaces=names(given["namespaces"]),
        gateway_image=given["gateway_image"],
        worker_image=given["worker_image"],
        image_pull_policy=given["image_pull_policy"],
        image_pull_secrets=names(given["image_pull_secrets"]),
        metrics_listen=given["metrics_listen"],
        health_listen=given["health_listen"],
        lease_namespace=given["lease_namespace"],
        lease_name=given["lease_name"],
        identity=given["identity"] or socket.gethostname(),
        kubeconfig=Path(given["kubeconfig"]) if given["kubeconfig"] else None,
        resync_s=_positive(parser, given, "resync_s"),
        plan_every_s=_positive(parser, given, "plan_every_s"),
        max_parallel=int(_positive(parser, given, "max_parallel")),
        log_level=given["log_level"],
        log_format=given["log_format"],
    )


def _positive(parser: argparse.ArgumentParser, given: Mapping[str, str], name: str) -> float:
    try:
        value = float(given[name])
    except ValueError:
        value = 0.0
    if not 0 < value <= MAX_NUMBER:
        parser.error(f"--{name.replace('_', '-')}: a number above 0, at most {MAX_NUMBER:.0f}, not {given[name]!r}")
    return value
