"""The command line of an auditor process."""

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class AuditorSettings:
    pool: Path
    profile: Path
    listen: str
    control_listen: str
    metrics_listen: str
    models_dir: Path
    corrections: Path | None
    save_corrections: bool
    device: str
    announce: Path | None
    tls_dir: Path | None
    gateway_name: str


def parse_arguments(arguments: list[str] | None = None) -> AuditorSettings:
    """Parse argv; exits with a message on a mistake."""
    parser = argparse.ArgumentParser(prog="t2i-auditor", description="Is the quality served that was promised?")
    parser.add_argument("--pool", type=Path, required=True, help="T2IServingPool file; spec.quality names the judge")
    parser.add_argument("--profile", type=Path, required=True, help="profile JSON that t2ictl profile wrote")
    parser.add_argument("--listen", default="127.0.0.1:0", help="gRPC address for gateways, port 0 = any free one")
    parser.add_argument(
        "--control-listen", default="", help="plaintext address of health and AuditControl for kubelet and operator"
    )
    parser.add_argument("--metrics-listen", default="127.0.0.1:0", help="address of /metrics")
    parser.add_argument("--models-dir", type=Path, default=Path("models"), help="where hf:// and pvc:// weights are")
    parser.add_argument(
        "--corrections", type=Path, default=None, help="JSON of corrections to begin with; it need not exist"
    )
    parser.add_argument(
        "--save-corrections", action="store_true", help="write new corrections to --corrections (local mode)"
    )
    parser.add_argument("--device", default="", help="of the judge: cpu, cuda ...; default: a GPU if there is one")
    parser.add_argument("--announce", type=Path, default=None, help="write the bound addresses there when ready")
    parser.add_argument("--tls-dir", type=Path, default=None, help="security.workerTlsSecretName, mounted")
    parser.add_argument("--gateway-name", default="", help="DNS name in the certificates of gateways")
    settings = AuditorSettings(**vars(parser.parse_args(arguments)))
    if (settings.tls_dir is not None) != bool(settings.gateway_name):
        parser.error("--tls-dir and --gateway-name belong together: give both, or neither")
    if settings.save_corrections and settings.corrections is None:
        parser.error("--save-corrections needs --corrections FILE")
    return settings
