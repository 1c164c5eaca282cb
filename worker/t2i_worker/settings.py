"""The command line of a worker process."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from t2i_runtime.arguments import drain_seconds


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    pool: Path
    group: str
    name: str
    listen: str
    metrics_listen: str
    store: str
    store_pool: str
    own_store: bool
    models_dir: Path
    profile: Path | None
    announce: Path | None
    device: str
    threads: int
    max_batch: int
    drain_s: float
    health_listen: str
    tls_dir: Path | None
    gateway_name: str
    simulated_reload_s: float


def parse_arguments(arguments: list[str] | None = None) -> WorkerSettings:
    """Parse argv; exits with a message on a mistake."""
    parser = argparse.ArgumentParser(prog="t2i-worker", description="One device, one warm model.")
    parser.add_argument("--pool", type=Path, required=True, help="T2IServingPool file")
    parser.add_argument("--group", required=True, help="worker group of the pool")
    parser.add_argument("--name", required=True, help="name of this worker, unique in the pool")
    parser.add_argument("--listen", default="127.0.0.1:0", help="gRPC address, port 0 = any free one")
    parser.add_argument("--metrics-listen", default="127.0.0.1:0", help="address of /metrics")
    parser.add_argument("--store", default="memory://", help="latent store URL; the gateway must use the same one")
    parser.add_argument(
        "--store-pool", default="", help="whose latents these are in a redis:// store; default: the pool's name"
    )
    parser.add_argument(
        "--own-store",
        action="store_true",
        help="--store is this worker's alone (a folder or memory): it keeps the cache's limits there, and removes "
        "whatever else lies there",
    )
    parser.add_argument("--models-dir", type=Path, default=Path("models"), help="where hf:// and pvc:// models are")
    parser.add_argument("--profile", type=Path, default=None, help="profile JSON; only the simulated engine needs it")
    parser.add_argument("--announce", type=Path, default=None, help="write the bound addresses there when ready")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument(
        "--threads", type=_whole(0, 1024), default=0, help="CPU threads of the model; 0 = torch's choice"
    )
    parser.add_argument("--max-batch", type=_whole(1, 1024), default=8, help="largest batch tried at warm-up")
    parser.add_argument(
        "--drain-s", type=drain_seconds, default=30.0, help="seconds running requests get after SIGTERM"
    )
    parser.add_argument("--health-listen", default="", help="plaintext address of health alone, for the kubelet")
    parser.add_argument("--tls-dir", type=Path, default=None, help="security.workerTlsSecretName, mounted")
    parser.add_argument("--gateway-name", default="", help="DNS name in the certificates of gateways")
    parser.add_argument(
        "--simulated-reload-s",
        type=drain_seconds,
        default=5.0,
        help="what the simulated engine takes to load another model",
    )
    settings = WorkerSettings(**vars(parser.parse_args(arguments)))
    if (settings.tls_dir is not None) != bool(settings.gateway_name):
        parser.error("--tls-dir and --gateway-name belong together: give both, or neither")
    return settings


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"a whole number from {low} to {high}, not {text!r}")
        return int(text)

    return parse
