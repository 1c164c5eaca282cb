"""A server that speaks S3, for tests: moto's, from the package index, in a folder of its own.

It is no dependency of the project: its own would hold back versions that the operator runs with.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REQUIREMENTS = ("moto==5.2.5", "flask==3.1.3", "flask-cors==6.0.5")
INSTALL_LIMIT_S = 300.0
SERVE = """
import time
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
time.sleep(3600)
"""


def ensure_packages() -> Path:
    """The folder with the server, installed once for each machine."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "t2i-serving" / "s3" / f"{REQUIREMENTS[0]}-{sys.version_info.major}.{sys.version_info.minor}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="s3-", dir=folder.parent))
    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(made), *REQUIREMENTS]
    subprocess.run(command, check=True, timeout=INSTALL_LIMIT_S)
    try:
        made.rename(folder)
    except OSError:  # another run was faster
        shutil.rmtree(made)
    return folder


@contextmanager
def s3_server() -> Iterator[str]:
    """Its address, such as http://127.0.0.1:PORT. Whatever keys it is shown open it."""
    environment = {**os.environ, "PYTHONPATH": str(ensure_packages())}
    with subprocess.Popen(
        [sys.executable, "-c", SERVE], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, "the S3 server did not start"
            yield address
        finally:
            process.kill()


if __name__ == "__main__":
    ensure_packages()
