"""Server processes on this machine: start, wait until they announce themselves, stop with a drain."""

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from t2ictl.errors import StartFailed

POLL_S = 0.05
LOG_TAIL_LINES = 12


@dataclass(slots=True)
class ServerProcess:
    """One `python -m MODULE` with its announcement and log under `folder`."""

    name: str
    module: str
    arguments: Sequence[str]
    folder: Path
    address: str = ""
    metrics_address: str = ""
    process: asyncio.subprocess.Process | None = None

    @property
    def log_path(self) -> Path:
        """Where its output goes."""
        return self.folder / f"{self.name}.log"

    @property
    def _announcement(self) -> Path:
        return self.folder / f"{self.name}.json"

    async def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches us alone and we decide the order of stopping."""
        self._announcement.unlink(missing_ok=True)
        command = [sys.executable, "-m", self.module, *self.arguments, "--announce", str(self._announcement)]
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command, stdout=log, stderr=log, start_new_session=True
            )

    async def wait_ready(self, limit_s: float) -> None:
        """Wait for the announcement.

        Raises:
            StartFailed: it ended, or took longer than the limit; with the end of its log.
        """
        try:
            async with asyncio.timeout(limit_s):
                while not self._announcement.exists():
                    if self.process is None or self.process.returncode is not None:
                        raise StartFailed(f"{self.name} ended before it was ready:\n{self.log_tail()}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise StartFailed(f"{self.name} was not ready after {limit_s:.0f} s:\n{self.log_tail()}") from error
        announced = json.loads(self._announcement.read_text())
        self.address, self.metrics_address = announced["address"], announced["metrics_address"]

    async def stop(self, limit_s: float) -> None:
        """SIGTERM, wait for the drain, SIGKILL past the limit."""
        if self.process is None or self.process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(limit_s):
                await self.process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self.process.kill()
            await self.process.wait()

    def log_tail(self) -> str:
        """The last lines it wrote."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
