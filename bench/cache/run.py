"""The cache at 10^4 to 10^6 prompts: `make bench-cache` -> build/bench/cache.json, bench/results/cache.md.

Measured are lookups and recall of the index, and again after its content changed ten times. Its embeddings are made up,
as hard as real ones; with --prompts also real ones. Latents are fetched from a Valkey on loopback, and a gateway's
catalogue is rebuilt from it. Figures of each size are written as soon as they are there. --sizes picks some, and keeps
what the file has of the others.
"""

import asyncio
import json
from typing import Any

from bench.cache.index import measure_index
from bench.cache.page import COUNTS, write_report
from bench.cache.recall import measure_recall
from bench.cache.store import measure_fetch, measure_rebuild
from bench.kit.arguments import PROMPTS, BenchParser
from bench.kit.machine import load_average, machine_line
from bench.kit.output import write_json

PARTS = ("index", "rebuild", "fetch", "real")
NAMES = {count: name for name, count in COUNTS.items()}
#: Agreed key -> the figure of a size that it repeats; `{}` = the size's name.
SIZE_KEYS = {
    "lookup_p50_ms_{}": "lookup_p50_ms",
    "lookup_p99_ms_{}": "lookup_p99_ms",
    "recall_{}": "recall",
    "recall_churn_{}": "churned_recall",
    "rebuild_{}_s": "rebuild_s",
    "inserts_per_s": "inserts_per_s",  # of the largest size that was measured
    "bytes_per_entry": "bytes_per_entry",
}
PARSER = BenchParser(__doc__, "cache", quick={"sizes": [10_000], "turnovers": 1, "real_rows": 10_000}, page=True)
PARSER.add_input(PROMPTS, needed=False)
PARSER.add_argument("--sizes", type=int, nargs="*", default=list(NAMES), choices=list(NAMES))
PARSER.add_argument("--turnovers", type=int, default=10, help="how often all content changes")
PARSER.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
PARSER.add_argument("--real-rows", type=int, default=100_000, help="rows among which real prompts are looked for")


def with_keys(figures: dict[str, Any]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for name, found in figures.get("sizes", {}).items():
        keys |= {key.format(name): found[source] for key, source in SIZE_KEYS.items() if source in found}
    for kib, found in figures.get("fetch", {}).items():
        if isinstance(found, dict):
            keys[f"fetch_p99_ms_{kib}"] = found["p99_ms"]
    if "real" in figures:
        keys["recall_real"] = figures["real"]["recall"]
    return {**figures, **keys}


def main() -> None:
    options = PARSER.parse()
    figures: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    for size in options.sizes:
        found: dict[str, Any] = {}
        if "index" in options.parts:
            found |= measure_index(size, options.turnovers)
        if "rebuild" in options.parts:
            found |= asyncio.run(measure_rebuild(size))
        found["load_average"] = load_average()
        figures.setdefault("sizes", {}).setdefault(NAMES[size], {}).update(found)
        write_json(options.out, with_keys(figures))
    if "real" in options.parts and options.prompts is not None:
        figures["real"] = measure_recall(options.prompts, options.real_rows)
    if "fetch" in options.parts:
        figures["fetch"] = {**asyncio.run(measure_fetch()), "load_average": load_average()}
    write_json(options.out, with_keys(figures))
    write_report(with_keys(figures), machine_line(), options.results)


if __name__ == "__main__":
    main()
