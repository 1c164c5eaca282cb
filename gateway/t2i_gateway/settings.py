"""Command line of a gateway process."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from t2i_runtime.arguments import drain_seconds, names

WITH_WORKERS = "workers://"


@dataclass(frozen=True, slots=True)
class PoolPlace:
    """Where the pool's object is in the cluster."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    pool: Path
    listen: str
    listen_http: str
    metrics_listen: str
    control_listen: str
    workers: tuple[str, ...]
    kubernetes: PoolPlace | None
    store: str
    store_pool: str
    embedder: str
    models_dir: Path
    profile: Path
    announce: Path | None
    local: bool
    playground: bool
    tenants: frozenset[str]
    drain_s: float
    gateways: int
    tls_dir: Path | None
    tokens_dir: Path | None
    worker_tls_dir: Path | None
    worker_name: str
    auditor: str
    safety_prompt_dir: Path | None
    safety_image_dir: Path | None
    results_dir: Path | None
    c2pa_dir: Path | None


def parse_arguments(arguments: list[str] | None = None) -> GatewaySettings:
    """Parse argv; exits with a message on a mistake."""
    parser = argparse.ArgumentParser(prog="t2i-gateway", description="Prompts in, image streams out.")
    parser.add_argument("--pool", type=Path, required=True, help="T2IServingPool file")
    parser.add_argument("--listen", default="127.0.0.1:0", help="gRPC address, port 0 = any free one")
    parser.add_argument("--listen-http", default="", help="address of the OpenAI Images API; empty = not served")
    parser.add_argument("--metrics-listen", default="127.0.0.1:0", help="address of /metrics")
    parser.add_argument(
        "--control-listen", default="", help="plaintext address of health and Control for kubelet and operator"
    )
    parser.add_argument("--workers", type=names, default=(), help="addresses of workers, comma separated")
    parser.add_argument(
        "--kubernetes", type=_place, default=None, help="NAMESPACE/POOL: plan and workers come from the cluster"
    )
    parser.add_argument(
        "--store",
        default="memory://",
        help=f"latent store URL, the same as the workers'; {WITH_WORKERS} = each worker has a store of its own",
    )
    parser.add_argument(
        "--store-pool", default="", help="whose latents these are in a redis:// store; default: the pool's name"
    )
    parser.add_argument(
        "--embedder",
        default="",
        help="folder with tokenizer.json and model.onnx, or where to get one: builtin://scenes, hf://ORG/NAME, "
        "pvc://CLAIM/PATH; default: no similar prompts",
    )
    parser.add_argument(
        "--models-dir", type=Path, default=Path("models"), help="where volumes are mounted and downloads are kept"
    )
    parser.add_argument("--profile", type=Path, required=True, help="profile JSON that t2ictl profile wrote")
    parser.add_argument("--announce", type=Path, default=None, help="write the bound addresses there when ready")
    parser.add_argument("--local", action="store_true", help="no security: the x-t2i-tenant header names the tenant")
    parser.add_argument(
        "--playground",
        action="store_true",
        help="serve the playground, whatever the pool says",
    )
    parser.add_argument("--tenants", type=lambda text: frozenset(names(text)), default=frozenset(), help="known ones")
    parser.add_argument(
        "--drain-s", type=drain_seconds, default=30.0, help="seconds running requests get after SIGTERM"
    )
    parser.add_argument(
        "--gateways", type=int, default=0, help="gateways that share the workers; default: the pool's gateway.replicas"
    )
    parser.add_argument("--tls-dir", type=Path, default=None, help="security.gatewayTlsSecretName, mounted")
    parser.add_argument("--tokens-dir", type=Path, default=None, help="security.tokensSecretName, mounted")
    parser.add_argument(
        "--worker-tls-dir", type=Path, default=None, help="security.gatewayClientTlsSecretName, mounted"
    )
    for place in ("prompt", "image"):
        parser.add_argument(
            f"--safety-{place}-dir", type=Path, default=None, help=f"safety.{place}.secretName, mounted"
        )
    parser.add_argument("--results-dir", type=Path, default=None, help="gateway.results.secretName, mounted")
    parser.add_argument("--c2pa-dir", type=Path, default=None, help="provenance.c2pa.secretName, mounted")
    parser.add_argument("--worker-name", default="", help="DNS name in the certificates of workers")
    parser.add_argument("--auditor", default="", help="address of the pool's auditor (spec.quality); empty = no audits")
    settings = GatewaySettings(**vars(parser.parse_args(arguments)))
    mounted = (settings.tls_dir, settings.tokens_dir, settings.worker_tls_dir)
    if settings.local and any(mounted):
        parser.error("--local switches security off: leave out --tls-dir, --tokens-dir and --worker-tls-dir")
    if settings.gateways < 0:
        parser.error("--gateways must be at least 1, or 0 for the pool's gateway.replicas")
    if settings.worker_tls_dir is not None and not settings.worker_name:
        parser.error("--worker-tls-dir needs --worker-name: whom the gateway expects behind a worker's address")
    if bool(settings.workers) == (settings.kubernetes is not None):
        parser.error("choose one: --workers (their addresses) or --kubernetes NAMESPACE/POOL")
    return settings


def _place(text: str) -> PoolPlace:
    namespace, _, name = text.partition("/")
    if not namespace or not name or "/" in name:
        raise argparse.ArgumentTypeError(f"NAMESPACE/POOL, not {text!r}")
    return PoolPlace(namespace, name)
