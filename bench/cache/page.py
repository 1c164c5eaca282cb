"""The page of the cache's figures and its plot."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.kit.output import fill, table, write_page
from bench.kit.plots import save_plot, subplots

HERE = Path(__file__).parent
COUNTS = {"1e4": 10_000, "1e5": 100_000, "1e6": 1_000_000}
TARGET_MS, TARGET_RECALL = 5.0, 0.97
TIMES = {"p50, CPU": "lookup_cpu_p50_ms", "p99, CPU": "lookup_cpu_p99_ms", "p99, wall": "lookup_p99_ms"}
RECALLS = {"fresh": "recall", "after turnover": "churned_recall", "repeated prompts": "recall_repeating"}
ROWS = (
    ("lookup, p50 / p99 ms", "lookup_p50_ms", "lookup_p99_ms"),
    ("lookup, CPU p50 / p99 ms", "lookup_cpu_p50_ms", "lookup_cpu_p99_ms"),
    ("the same after turnover, CPU p50 / p99 ms", "churned_lookup_cpu_p50_ms", "churned_lookup_cpu_p99_ms"),
    ("recall@1", "recall"),
    ("recall@1: repeated / new prompts", "recall_repeating", "recall_new"),
    ("recall@1 after turnover", "churned_recall"),
    ("turnovers of the whole content", "turnovers"),
    ("inserts per s, one at a time", "inserts_per_s"),
    ("replaced per s, new lists included", "churn_per_s"),
    ("lists built, s", "lists_s"),
    ("catalogue rebuilt from Valkey, s", "rebuild_s"),
    ("gateway memory per prompt with one latent, bytes", "bytes_per_entry"),
    ("index alone, bytes per prompt", "index_bytes_per_entry"),
    ("Valkey per prompt without latents, bytes", "store_bytes_per_entry"),
    ("load average of the machine at the end", "load_average"),
)
FETCH_HEAD = ("latent", "p50 ms", "p99 ms", "without the check: p50", "p99")
FETCH_KEYS = ("p50_ms", "p99_ms", "get_p50_ms", "get_p99_ms")


def write_report(figures: dict[str, Any], machine: str, folder: Path) -> None:
    sizes = {name: figures["sizes"][name] for name in COUNTS if name in figures.get("sizes", {})}
    fetched = {name: found for name, found in figures.get("fetch", {}).items() if isinstance(found, dict)}
    real = "Recall on real prompts was not measured: it needs PROMPTS=FILE."
    if "real" in figures:
        told = {name: _text(value) for name, value in figures["real"].items()}
        real = fill(HERE / "real.md.in", **told).strip()
    write_page(
        folder / "cache.md",
        HERE / "page.md.in",
        machine=machine,
        sizes=table(["", *(f"10^{name[-1]}" for name in sizes)], (_cells(row, sizes.values()) for row in ROWS)),
        real=real,
        fetch=table(FETCH_HEAD, ([name, *(_text(one[key]) for key in FETCH_KEYS)] for name, one in fetched.items())),
    )
    _plot({COUNTS[name]: found for name, found in sizes.items() if "recall" in found}, folder / "cache.png")


def _cells(row: Sequence[str], sizes: Iterable[dict[str, Any]]) -> list[str]:
    title, *keys = row
    return [title, *(" / ".join(_text(found.get(key)) for key in keys) for found in sizes)]


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if value < 1 else f"{value:.2f}"
    return "-" if value is None else str(value)


def _plot(by_count: dict[int, dict[str, Any]], to: Path) -> None:
    if not by_count:
        return
    figure, panels = subplots(1, 2, figsize=(9, 3.6))
    for axes, lines in zip(panels, (TIMES, RECALLS), strict=True):
        for title, key in lines.items():
            axes.plot(list(by_count), [found[key] for found in by_count.values()], marker="o", label=title)
        axes.set(xscale="log", xlabel="prompts")
    times, recalls = panels
    times.axhline(TARGET_MS, color="grey", linestyle="--", label="goal for p99")
    times.set(yscale="log", ylabel="lookup, ms", title="Lookup")
    recalls.axhline(TARGET_RECALL, color="grey", linestyle="--", label="goal")
    recalls.set(ylim=(0.9, 1.005), ylabel="recall@1", title="Recall against exact search")
    for axes in panels:
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    save_plot(figure, to)
