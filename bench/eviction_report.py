"""The page and the plot of the eviction benchmark, from its JSON document alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt

OURS = "steps at stake"
STYLES = {OURS: "o-", "LCBFU": "s--", "LRU": "^--", "FIFO": "v--", "clairvoyant": "x:"}


def render(document: dict[str, Any]) -> str:
    """Markdown."""
    machine = document["machine"]
    lines = [
        "# Steps saved by eviction policy and cache size",
        "",
        f"`make bench-eviction`, {document['took_s']:.0f} s on {machine['processor']}, {machine['cores']} cores. "
        f"{document['prompts']} real prompts (DiffusionDB, in order), embedded by all-MiniLM-L6-v2; levels by "
        "NIRVANA's similarity thresholds; latents of 5, 10, 15, 20 and 25 of 50 steps; one prompt a second. Cache size "
        "is a share of all latents there would be if every different prompt stored its five. Figures: percent of all "
        "denoising steps saved. **Bold**: the best policy of a column that does not know the future. Lead: steps at "
        "stake minus the best of LCBFU, LRU and FIFO, ± one standard error (20 blocks of prompts). The policy's shape "
        "and constants were chosen on the first half of the real prompts only; of an earlier version without the "
        "fresh-worth term, figures of the second half and the sessions had been seen.",
        "",
        "![steps saved](eviction.png)",
        "",
    ]
    for workload in _names(document["rows"], "workload"):
        for rule in _names(document["rows"], "rule"):
            lines += [f"## {workload.capitalize()}, {rule}", "", *_table(document, workload, rule), ""]
    lines += [
        "## Reading",
        "",
        *_reading(document),
        "",
        "## What eviction cannot change",
        "",
        *_unlimited(document),
        "",
    ]
    lines += ["## Other constants", "", *_constants(document), ""]
    lines += ["## The clock and the cost", "", *_clock(document), ""]
    return "\n".join(lines)


def _names(rows: Iterable[dict[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(str(row[key]) for row in rows))


def _pick(rows: list[dict[str, Any]], **wanted: object) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _table(document: dict[str, Any], workload: str, rule: str) -> list[str]:
    rows = _pick(document["rows"], workload=workload, rule=rule)
    sizes = list(dict.fromkeys(row["cache_percent"] for row in rows))
    items = list(dict.fromkeys(row["cache_items"] for row in rows))
    heads = (f"{size:g} % ({count})" for size, count in zip(sizes, items, strict=True))
    lines = ["| policy | " + " | ".join(heads) + " |", "|---" * (len(sizes) + 1) + "|"]
    blind = [row for row in rows if row["policy"] != "clairvoyant"]
    best = {size: max(row["saved_percent"] for row in _pick(blind, cache_percent=size)) for size in sizes}
    for policy in STYLES:
        values = [row["saved_percent"] for row in _pick(rows, policy=policy)]
        marked = policy != "clairvoyant"
        texts = [
            f"**{v:.2f}**" if marked and v == best[size] else f"{v:.2f}" for v, size in zip(values, sizes, strict=True)
        ]
        lines.append(f"| {policy}{'' if marked else ' (knows the future)'} | " + " | ".join(texts) + " |")
    bounds = [row["bound_percent"] for row in _pick(document["bound_rows"], workload=workload)]
    lines.append("| bound | " + " | ".join(f"{bound:.2f}" for bound in bounds) + " |")
    leads = _pick(document["lead_rows"], workload=workload, rule=rule)
    lead = (f"{row['lead_percent']:+.2f} ± {row['lead_stderr']:.2f} ({row['best_rival']})" for row in leads)
    return [*lines, "| lead | " + " | ".join(lead) + " |"]


def _reading(document: dict[str, Any]) -> list[str]:
    lines = []
    for workload in _names(document["lead_rows"], "workload"):
        for rule in _names(document["lead_rows"], "rule"):
            leads = _pick(document["lead_rows"], workload=workload, rule=rule)
            ahead = [row for row in leads if row["lead_percent"] > row["lead_stderr"]]
            behind = [row for row in leads if row["lead_percent"] < -row["lead_stderr"]]
            said = f"- {workload}, {rule}: ahead by more than a standard error at {_sizes(ahead)}, behind at "
            lines.append(
                said + f"{_sizes(behind)}, within it at {_sizes(r for r in leads if r not in ahead + behind)}."
            )
    return [
        *lines,
        "- The bound lets a request use the best of everything stored; the gateway's lookup takes the nearest prompt, "
        "and only what the storing rule kept. So the gap to the bound is not the eviction policy's alone. The "
        "clairvoyant is a heuristic for most hits by the present contents: where only full runs store, more hits now "
        "mean fewer and older latents later, and policies that do not know the future can beat it.",
    ]


def _sizes(rows: Iterable[dict[str, Any]]) -> str:
    return ", ".join(f"{row['cache_percent']:g} %" for row in rows) or "no size"


def _unlimited(document: dict[str, Any]) -> list[str]:
    rows = document["unlimited_rows"]
    rules = _names(rows, "rule")
    lines = [
        "Steps saved by a cache without a limit, by what is stored:",
        "",
        "| prompts | " + " | ".join(rules) + " |",
    ]
    lines.append("|---" * (len(rules) + 1) + "|")
    for workload in _names(rows, "workload"):
        values = (f"{row['saved_percent']:.2f}" for row in _pick(rows, workload=workload))
        lines.append(f"| {workload} | " + " | ".join(values) + " |")
    return lines


def _constants(document: dict[str, Any]) -> list[str]:
    rows = document["constant_rows"]
    tried = list(dict.fromkeys(tuple(row["constants"]) for row in rows))
    lines = [
        "Second half, steps at stake with other constants. The default is 0.5, 1.25; where every run stores, a hit "
        "keeps nobody from storing, so the tables above use 0, 1.25 there:",
        "",
        "| fresh worth, silence power | " + " | ".join(f"{worth:g}, {power:g}" for worth, power in tried) + " |",
        "|---" * (len(tried) + 1) + "|",
    ]
    for rule in _names(rows, "rule"):
        for size in dict.fromkeys(row["cache_percent"] for row in rows):
            cells = (f"{row['saved_percent']:.2f}" for row in _pick(rows, rule=rule, cache_percent=size))
            lines += [f"| {rule}, {size:g} % | {' | '.join(cells)} |"]
    return lines


def _clock(document: dict[str, Any]) -> list[str]:
    rows = document["clock_rows"]
    spacings = list(dict.fromkeys(row["spacing_s"] for row in rows))
    lines = [
        "Steps at stake has one figure in seconds, so the same prompts at other rates (second half, 2 %):",
        "",
        "| rule | " + " | ".join(f"every {spacing:g} s" for spacing in spacings) + " |",
        "|---" * (len(spacings) + 1) + "|",
    ]
    for rule in _names(rows, "rule"):
        cells = (f"{row['saved_percent']:.2f}" for row in _pick(rows, rule=rule))
        lines += [f"| {rule} | {' | '.join(cells)} |"]
    took = ", ".join(f"{name} {value:.0f} ms" for name, value in document["rank_ms_1e5"].items())
    return [*lines, "", f"One ranking of 100,000 latents, which frees 5 % of the cache: {took}."]


def plot(document: dict[str, Any], to: Path) -> None:
    """Steps saved by cache size: a panel for each rule and workload, a line a policy."""
    workloads, rules = _names(document["rows"], "workload"), _names(document["rows"], "rule")
    figure, axes = plt.subplots(len(rules), len(workloads), figsize=(4.2 * len(workloads), 3.6 * len(rules)))
    for across, workload in enumerate(workloads):
        bounds = _pick(document["bound_rows"], workload=workload)
        for down, rule in enumerate(rules):
            axis = axes[down][across]
            for policy, style in STYLES.items():
                rows = _pick(document["rows"], workload=workload, rule=rule, policy=policy)
                points = [row["cache_percent"] for row in rows], [row["saved_percent"] for row in rows]
                axis.plot(*points, style, label=policy, linewidth=2.2 if policy == OURS else 1.2)
            limit = [row["cache_percent"] for row in bounds], [row["bound_percent"] for row in bounds]
            axis.plot(*limit, color="black", linewidth=1, label="bound")
            axis.set_xscale("log")
            axis.set_ylim(bottom=0)
            axis.set_title(f"{workload}; {rule}", fontsize=9)
            axis.grid(alpha=0.3)
            axis.set_xlabel("cache size, percent of all latents")
        axes[0][across].set_ylabel("steps saved, percent")
    axes[0][0].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(to, dpi=110)
    plt.close(figure)
