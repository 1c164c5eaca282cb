"""The worker's certificate, and whom it lets in: gateways of its own pool, nobody else. Without one it is open."""

import logging
from pathlib import Path

from t2i_runtime.tls.certificates import Shown
from t2i_runtime.tls.guarded_port import GuardedPort, open_guarded_port
from t2i_worker.metrics import WorkerMetrics

log = logging.getLogger(__name__)


def open_security(tls_dir: Path | None, gateway_name: str, metrics: WorkerMetrics) -> GuardedPort:
    """Read the mounted certificate, if there is to be one.

    Raises:
        CertificatesUnusable: the Secret is missing or unusable.
    """
    if tls_dir is None:
        log.warning("INSECURE: no --tls-dir: whoever reaches this worker may call it, and prompts arrive in clear")
    return open_guarded_port(tls_dir, gateway_name, Shown(metrics.count_reload, metrics.show_certificate))
