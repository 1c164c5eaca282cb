"""The cache at 10^4 to 10^6 prompts: `make bench-cache` -> build/bench/cache.json, bench/results/cache.md.

Lookups and recall of the index (made-up embeddings as hard as real ones: `cache_prompts`), again after its content
changed ten times; recall on real prompts, if --prompts names a file of them (`cache_recall`); latents fetched from a
Valkey on loopback; a gateway's catalogue rebuilt from that Valkey. Figures of each size are written as soon as they are
there; --sizes picks some, and keeps what the file has of the others.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path

from cache_index import Figures, measure_index
from cache_recall import measure_recall
from cache_report import write_page
from cache_store import measure_fetch, measure_rebuild
from machine import write_result

PARTS = ("index", "rebuild", "fetch", "real")
NAMES = {10_000: "1e4", 100_000: "1e5", 1_000_000: "1e6"}
TURNOVERS = 10
REAL_ROWS = 100_000
_began_s = time.perf_counter()


def say(text: str) -> None:
    """Progress, for people."""
    sys.stderr.write(f"[{time.perf_counter() - _began_s:6.0f} s] {text}\n")


def main() -> None:
    """Measure, write, render."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/bench/cache.json"))
    parser.add_argument("--sizes", type=int, nargs="*", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("--turnovers", type=int, default=TURNOVERS, help="how often all content changes")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--prompts", type=Path, help="real prompts, one a line; without it their recall is left out")
    options = parser.parse_args()
    figures: Figures = json.loads(options.out.read_text()) if options.out.exists() else {}
    for size in options.sizes:
        found: Figures = {}
        if "index" in options.parts:
            found |= measure_index(size, options.turnovers, say)
        if "rebuild" in options.parts:
            found |= asyncio.run(measure_rebuild(size, say))
        found["load_average"] = round(os.getloadavg()[0], 1)
        figures.setdefault("sizes", {}).setdefault(NAMES[size], {}).update(found)
        write_result(options.out, with_keys(figures))
    if "real" in options.parts and options.prompts is not None:
        figures["real"] = measure_recall(options.prompts, REAL_ROWS, say)
        write_result(options.out, with_keys(figures))
    if "fetch" in options.parts:
        figures["fetch"] = {**asyncio.run(measure_fetch(say)), "load_average": round(os.getloadavg()[0], 1)}
    write_result(options.out, with_keys(figures))
    write_page(with_keys(figures))


def with_keys(figures: Figures) -> Figures:
    """The agreed names beside the full tables."""
    keys: Figures = {}
    for name, found in figures.get("sizes", {}).items():
        pairs = {
            "lookup_p50_ms": "lookup_p50_ms",
            "lookup_p99_ms": "lookup_p99_ms",
            "recall": "recall",
            "recall_churn": "churned_recall",
            "rebuild": "rebuild_s",
        }
        for key, source in pairs.items():
            if source in found:
                keys[f"{key}_{name}" if key != "rebuild" else f"rebuild_{name}_s"] = found[source]
        for key in ("inserts_per_s", "bytes_per_entry"):  # of the largest size that was measured
            if key in found:
                keys[key] = found[key]
    for kib, found in figures.get("fetch", {}).items():
        if isinstance(found, dict):
            keys[f"fetch_p99_ms_{kib}"] = found["p99_ms"]
    if "real" in figures:
        keys["recall_real"] = figures["real"]["recall"]
    return {**figures, **keys}


if __name__ == "__main__":
    main()
