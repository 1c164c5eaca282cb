"""Server processes on this machine: start, wait until they announce themselves, stop with a drain."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from t2ictl.errors import StartFailed

POLL_S = 0.05
LOG_TAIL_LINES = 12
#: What a server says with CRITICAL, its further lines too, up to the next line of the log or a traceback.
_LAST_WORDS = re.compile(r"^\S+ \S+ CRITICAL \S+: (.*(?:\n(?!\d{4}-|Traceback|Exception ignored).+)*)", re.MULTILINE)


@dataclass(slots=True)
class ServerProcess:
    """One `python -m MODULE` with its announcement and log under `folder`."""

    name: str
    module: str
    arguments: Sequence[str]
    folder: Path
    address: str = ""
    metrics_address: str = ""
    http_address: str = ""
    control_address: str = ""
    process: asyncio.subprocess.Process | None = None
    log_begins: int = 0

    @property
    def log_path(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def _announcement(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def running(self) -> bool:
        """True from its start to its end."""
        return self.process is not None and self.process.returncode is None

    async def start(self) -> None:
        """Start it in a session of its own: Ctrl-C then reaches us alone, and we decide the order of stopping."""
        self._announcement.unlink(missing_ok=True)
        command = [sys.executable, "-m", self.module, *self.arguments, "--announce", str(self._announcement)]
        with self.log_path.open("ab") as log:
            self.log_begins = log.tell()
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
                    if not self.running:
                        raise StartFailed(self.complaint())
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise StartFailed(f"{self.name} was not ready after {limit_s:.0f} s:\n{self.log_tail()}") from error
        announced = json.loads(self._announcement.read_text())
        self.address, self.metrics_address = announced["address"], announced["metrics_address"]
        self.http_address, self.control_address = announced["http_address"], announced["control_address"]

    async def ended(self) -> str:
        """Wait until it ends; why, as far as its log says."""
        code = None if self.process is None else await self.process.wait()
        return f"ended with code {code}; the end of its log:\n{self.log_tail()}"

    def keep_addresses(self) -> None:
        """Listen where it listened when it is started again: others know these addresses."""
        known = {
            "--listen": self.address,
            "--metrics-listen": self.metrics_address,
            "--control-listen": self.control_address,
        }
        kept = [text for option, address in known.items() if address for text in (option, address)]
        before = [*self.arguments]
        if before[len(before) - len(kept) :] != kept:
            self.arguments = [*before, *kept]

    async def stop(self, limit_s: float) -> None:
        """SIGTERM, wait for the drain, SIGKILL past the limit."""
        if self.process is None or not self.running:
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

    def complaint(self) -> str:
        """Why it ended before it was ready: its own sentence, or the end of its log if it had none."""
        said = _LAST_WORDS.findall(self._written())
        if said:
            return f"{self.name}: {said[-1].strip()}"
        return f"{self.name} ended before it was ready:\n{self.log_tail()}"

    def log_tail(self) -> str:
        return "\n".join(self._written().splitlines()[-LOG_TAIL_LINES:])

    def _written(self) -> str:
        """Its log since it was started; what an earlier process of this name wrote is before."""
        if not self.log_path.exists():
            return ""
        with self.log_path.open("rb") as log:
            log.seek(self.log_begins)
            return log.read().decode(errors="replace")
