"""What a benchmark's JSON says about where it ran, and how it is written."""

import json
import os
import platform
from pathlib import Path
from typing import Any


def machine_facts() -> dict[str, Any]:
    """Processor, cores and Python; no host name, no path."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"processor": model, "cores": os.cpu_count(), "python": platform.python_version()}


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write JSON with the machine's facts beside the figures, and print it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**result, "machine": machine_facts()}, indent=1)
    path.write_text(text + "\n")
    print(text)
