"""Numbers of the scenarios -> build/bench/e2e.json: one object each, the last run of a scenario stands."""

import json
import os
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPORT = ROOT / "build" / "bench" / "e2e.json"


def record(scenario: str, engine: str, **numbers: object) -> None:
    """`engine`: what the workers ran, `scenes` (the embedded model) or `simulated`."""
    known = json.loads(REPORT.read_text()) if REPORT.exists() else {}
    known[scenario] = {
        "engine": engine,
        **numbers,
        "cpus": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 1),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(known, indent=1))
