"""grpcurl, a gRPC client that knows services by reflection only: GRPCURL, one on PATH, or one build with Go.

`python -m t2i_testing_kit.grpcurl` (`make grpcurl-assets`) builds it into the cache folder, keyed by version.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "v1.9.3"
PACKAGE = f"github.com/fullstorydev/grpcurl/cmd/grpcurl@{VERSION}"
BUILD_LIMIT_S = 1800.0


class GrpcurlMissing(RuntimeError):
    """There is no grpcurl and none can be built; the message says what to install or set."""


def ensure_grpcurl() -> Path:
    """Raises:
    GrpcurlMissing: there is none.
    """
    named = os.environ.get("GRPCURL") or shutil.which("grpcurl")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "t2i-serving" / "grpcurl" / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs may start at once: the second finds the first's
        if not (folder / "grpcurl").is_file():
            _build(folder)
    return folder / "grpcurl"


def _build(folder: Path) -> None:
    go = shutil.which("go")
    if go is None:
        text = "Reflection is tested with grpcurl: set GRPCURL to its path, or install Go 1.24 or newer."
        raise GrpcurlMissing(text)
    part = folder / "part"
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOBIN": str(part)}
    flags = ["-trimpath", "-ldflags", "-s -w"]
    done = subprocess.run(
        [go, "install", *flags, PACKAGE],
        cwd=folder, env=environment, timeout=BUILD_LIMIT_S, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise GrpcurlMissing(f"go install {PACKAGE} failed:\n{done.stderr[-2000:]}\nSet GRPCURL to one that you have.")
    (part / "grpcurl").replace(folder / "grpcurl")


if __name__ == "__main__":
    sys.stdout.write(f"{ensure_grpcurl()}\n")
