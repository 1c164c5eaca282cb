"""Local pools as on Kubernetes without `cache.storeUrl`: each worker has a latent folder of its own."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from t2ictl.local_pool import LocalPool
from t2ictl.processes import ServerProcess


@dataclass(slots=True)
class OwnStores(LocalPool):
    """A local pool whose workers share no store."""

    def store_of(self, worker: str) -> Path:
        """The worker's folder."""
        return (self._folder / "stores" / worker).resolve()

    def _worker_arguments(self, group: str, name: str, threads: int) -> list[str]:
        arguments = LocalPool._worker_arguments(self, group, name, threads)
        arguments[arguments.index("--store") + 1] = self.store_of(name).as_uri()
        return [*arguments, "--own-store"]

    def _make_gateway(self) -> ServerProcess:
        made = LocalPool._make_gateway(self)
        arguments = [*made.arguments]
        arguments[arguments.index("--store") + 1] = "workers://"
        made.arguments = arguments
        return made


def disk_bytes(root: Path) -> int:
    """As du and the kubelet count: the blocks of all files and folders; what goes meanwhile is not counted."""
    blocks = 0
    for folder, _, files in os.walk(root):
        for name in (".", *files):
            with suppress(FileNotFoundError):
                blocks += os.lstat(os.path.join(folder, name)).st_blocks
    return blocks * 512
