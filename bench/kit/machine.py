"""Where a benchmark ran. No host name, no path."""

import os
import platform
from pathlib import Path
from typing import Any


def machine_facts() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"processor": model, "cores": os.cpu_count(), "python": platform.python_version()}


def machine_line() -> str:
    facts = machine_facts()
    return f"{facts['processor']}, {facts['cores']} cores"


def load_average(digits: int = 1) -> float:
    """Of the last minute. Above the number of cores, wall times are the neighbours', not ours."""
    return round(os.getloadavg()[0], digits)


def process_cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
