"""A way to a Service of a cluster whose addresses this machine cannot reach: `kubectl port-forward`, kept alive.

A forward ends with the pod that it happened to choose; then another one begins at the same local port. Requests that
were on the way break, and clients ask again, as they must anyway.
"""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from t2i_testing_kit.programs import free_ports

AGAIN_S = 0.3
STOP_WITHIN_S = 5.0


@contextmanager
def forwarded(kubectl: Path, kubeconfig: Path, namespace: str, service: str, port: int) -> Iterator[str]:
    """The local address, for the time of the block."""
    (local_port,) = free_ports(1)
    command = [str(kubectl), "port-forward", f"--namespace={namespace}", f"service/{service}", f"{local_port}:{port}"]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    stop = threading.Event()

    def keep() -> None:
        while not stop.is_set():
            with subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                while process.poll() is None and not stop.wait(AGAIN_S):
                    pass
                process.terminate()

    keeper = threading.Thread(target=keep, name=f"forward-{service}", daemon=True)
    keeper.start()
    try:
        yield f"127.0.0.1:{local_port}"
    finally:
        stop.set()
        keeper.join(STOP_WITHIN_S)
