"""The page of the cache's figures and its plot."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt

from cache_index import Figures

RESULTS = Path(__file__).parent / "results"
COUNTS = {"1e4": 10_000, "1e5": 100_000, "1e6": 1_000_000}
TARGET_MS, TARGET_RECALL = 5.0, 0.97
TIMES = (("p50, CPU", "lookup_cpu_p50_ms"), ("p99, CPU", "lookup_cpu_p99_ms"), ("p99, wall", "lookup_p99_ms"))
RECALLS = (("fresh", "recall"), ("after turnover", "churned_recall"), ("repeated prompts", "recall_repeating"))
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


def write_page(figures: Figures) -> None:
    """bench/results/cache.md and cache.png."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "cache.md").write_text("\n".join(_lines(figures)) + "\n")
    _plot(figures)


def _lines(figures: Figures) -> Iterator[str]:
    sizes = {name: figures["sizes"][name] for name in COUNTS if name in figures.get("sizes", {})}
    machine = figures.get("machine", {})
    yield "# The cache at many prompts"
    yield ""
    processor, cores = machine.get("processor", "a machine"), machine.get("cores", "?")
    yield f"`make bench-cache` on {processor}, {cores} cores."
    yield "Goals: lookup p99 <= 5 ms and recall@1 >= 0.97 at 10^6, latent fetch p99 <= 5 ms."
    yield "Wall times hold the wait for cores that other work of the machine had (see load average), CPU times do not."
    yield ""
    yield "![Lookup time and recall by the number of prompts](cache.png)"
    yield ""
    yield "| " + " | ".join(["", *(f"10^{len(str(COUNTS[name])) - 1}" for name in sizes)]) + " |"
    yield "|---" * (len(sizes) + 1) + "|"
    for title, *names in ROWS:
        cells = [" / ".join(_text(found.get(name)) for name in names) for found in sizes.values()]
        yield "| " + " | ".join([title, *cells]) + " |"
    yield ""
    yield "Embeddings are made up with the mean and spectrum of real prompts (`bench/cache_prompts.py`): 400 questions"
    yield "change a stored prompt a little (nearest cosine about 0.95), 200 are new ideas (about 0.6, below what levels"
    yield "resume from). Recall compares with a search of all."
    yield ""
    yield from _real(figures.get("real"))
    yield "## Latents from Valkey on loopback"
    yield ""
    yield "| latent | p50 ms | p99 ms | without the check: p50 | p99 |"
    yield "|---|---|---|---|---|"
    for size, found in figures.get("fetch", {}).items():
        if isinstance(found, dict):
            values = (found[name] for name in ("p50_ms", "p99_ms", "get_p50_ms", "get_p99_ms"))
            yield "| " + " | ".join([size, *(_text(value) for value in values)]) + " |"
    yield ""
    yield "One after the other, checksum and finite values checked."
    yield ""
    yield "## Compute saved by cache size"
    yield ""
    yield "LCBFU, LRU, FIFO and ours on DiffusionDB's order, with a clairvoyant and the bound that nobody can pass:"
    yield "[eviction.md](eviction.md)."


def _real(found: Figures | None) -> Iterator[str]:
    """Recall on real prompts, if it was measured."""
    if found is None:
        return
    recall, near, missed = (_text(found[name]) for name in ("recall", "recall_near", "missed_by_p50"))
    yield f"On real prompts (DiffusionDB, all-MiniLM-L6-v2; `bench/cache_recall.py`): recall@1 {recall} of"
    yield f"{found['questions']} prompts held out, {near} of the {found['near']} with one at cosine 0.8 or more;"
    yield f"where it is wrong, its answer's cosine is {missed} lower (median). Among {found['rows']} rows:"
    yield f"{found['real_rows']} other real prompts, the rest mixed from pairs of them."
    yield ""


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if value < 1 else f"{value:.2f}"
    return "-" if value is None else str(value)


def _plot(figures: Figures) -> None:
    names = [name for name in COUNTS if "recall" in figures.get("sizes", {}).get(name, {})]
    if not names:
        return
    found = [figures["sizes"][name] for name in names]
    counts = [COUNTS[name] for name in names]
    figure, (times, recalls) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for title, key in (
        ("p50, CPU", "lookup_cpu_p50_ms"),
        ("p99, CPU", "lookup_cpu_p99_ms"),
        ("p99, wall", "lookup_p99_ms"),
    ):
        times.plot(counts, [one[key] for one in found], marker="o", label=title)
    times.axhline(TARGET_MS, color="grey", linestyle="--", label="goal for p99")
    times.set(xscale="log", yscale="log", xlabel="prompts", ylabel="lookup, ms", title="Lookup")
    for title, key in (
        ("fresh", "recall"),
        ("after turnover", "churned_recall"),
        ("repeated prompts", "recall_repeating"),
    ):
        recalls.plot(counts, [one[key] for one in found], marker="o", label=title)
    recalls.axhline(TARGET_RECALL, color="grey", linestyle="--", label="goal")
    recalls.set(
        xscale="log", ylim=(0.9, 1.005), xlabel="prompts", ylabel="recall@1", title="Recall against exact search"
    )
    for axes in (times, recalls):
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    figure.savefig(RESULTS / "cache.png", dpi=110)
    plt.close(figure)
