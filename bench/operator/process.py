"""An operator as a real process, and what can be seen of it from outside: metrics, memory, processor time."""

import asyncio
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import aiohttp

from bench.kit.machine import process_cpu_s
from t2i_testing_kit.programs import StartedProgram, free_ports

PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


class OperatorProcess:
    """Starts with its settings' defaults: all namespaces, text log at level info."""

    def __init__(self, kubeconfig: Path, log: Path) -> None:
        self._metrics_port, health_port = free_ports(2)
        flags = [
            f"--kubeconfig={kubeconfig}",
            "--lease-namespace=default",
            "--identity=bench",
            f"--metrics-listen=127.0.0.1:{self._metrics_port}",
            f"--health-listen=127.0.0.1:{health_port}",
        ]
        self.log = log
        self._program = StartedProgram("operator", [sys.executable, "-m", "t2i_operator", *flags], log)

    def start(self) -> None:
        self._program.start()

    def stop(self) -> None:
        """As a rollout would: SIGTERM, then wait."""
        self._program.stop(signal.SIGTERM)

    @property
    def pid(self) -> int:
        return self._program.pid

    def rss_mib(self) -> float:
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_MIB

    def peak_rss_mib(self) -> float:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        return int(found.group(1)) / 1024 if found else 0.0

    def cpu_s(self) -> float:
        return process_cpu_s(self.pid)

    async def until_leader(self) -> None:
        leads = 0.0
        while not leads:
            await asyncio.sleep(0.2)
            leads = await self.metric("t2i_operator_leader")

    async def metric(self, name: str) -> float:
        """A metric, summed over its labels; 0 while it does not answer."""
        with suppress(aiohttp.ClientError, TimeoutError):
            timeout = aiohttp.ClientTimeout(total=5)
            async with aiohttp.ClientSession(timeout=timeout) as session:
                text = await (await session.get(f"http://127.0.0.1:{self._metrics_port}/metrics")).text()
            return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))
        return 0.0
