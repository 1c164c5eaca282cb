"""The custom resources of cert-manager, from its Go module: to check our examples against its own schema."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

MODULE = "github.com/cert-manager/cert-manager@v1.18.2"
LIMIT_S = 300.0


def crd_files() -> tuple[Path, Path]:
    """Of certificates and issuers; skips the test where there is no Go to get them with."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("Go is needed to get cert-manager's custom resources")
    said = subprocess.run(
        [go, "mod", "download", "-json", MODULE], capture_output=True, check=True, timeout=LIMIT_S, cwd="/"
    )
    folder = Path(json.loads(said.stdout)["Dir"]) / "deploy" / "crds"
    return folder / "crd-certificates.yaml", folder / "crd-issuers.yaml"
