"""The page and the plot of the eviction benchmark, from its JSON document alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.kit.output import table, write_page
from bench.kit.plots import save_plot, subplots

OURS, CLAIRVOYANT = "steps at stake", "clairvoyant"
STYLES = {OURS: "o-", "LCBFU": "s--", "LRU": "^--", "FIFO": "v--", CLAIRVOYANT: "x:"}
EvictionRow = dict[str, Any]


def write_report(document: dict[str, Any], machine: str, folder: Path) -> None:
    workloads, rules = (_values(document["rows"], key) for key in ("workload", "rule"))
    pairs = [(workload, rule) for workload in workloads for rule in rules]
    tables = [f"## {name.capitalize()}, {rule}\n\n{_sizes_table(document, name, rule)}" for name, rule in pairs]
    write_page(
        folder / "eviction.md",
        Path(__file__).with_name("page.md.in"),
        took_s=document["took_s"],
        machine=machine,
        prompts=document["prompts"],
        tables="\n\n".join(tables),
        reading="\n".join(_reading(document["lead_rows"], *pair) for pair in pairs),
        unlimited=_unlimited(document["unlimited_rows"]),
        constants=_constants(document["constant_rows"]),
        clock=_clock(document["clock_rows"]),
        took=", ".join(f"{name} {value:.0f} ms" for name, value in document["rank_ms_1e5"].items()),
    )
    _plot(document, workloads, rules, folder / "eviction.png")


def _values(rows: Iterable[EvictionRow], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def _pick(rows: Iterable[EvictionRow], **wanted: object) -> list[EvictionRow]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _saved(rows: Iterable[EvictionRow]) -> list[str]:
    return [f"{row['saved_percent']:.2f}" for row in rows]


def _sizes_table(document: dict[str, Any], workload: str, rule: str) -> str:
    rows = _pick(document["rows"], workload=workload, rule=rule)
    blind = [row for row in rows if row["policy"] != CLAIRVOYANT]
    sizes = _values(rows, "cache_percent")
    best = {size: max(row["saved_percent"] for row in _pick(blind, cache_percent=size)) for size in sizes}
    lines = []
    for policy in STYLES:
        own = _pick(rows, policy=policy)
        if policy == CLAIRVOYANT:
            lines.append([f"{policy} (knows the future)", *_saved(own)])
            continue
        are_best = [row["saved_percent"] == best[row["cache_percent"]] for row in own]
        lines.append([policy, *(f"**{text}**" if b else text for text, b in zip(_saved(own), are_best, strict=True))])
    bounds = _pick(document["bound_rows"], workload=workload)
    lines.append(["bound", *(f"{row['bound_percent']:.2f}" for row in bounds)])
    leads = _pick(document["lead_rows"], workload=workload, rule=rule)
    told = (f"{row['lead_percent']:+.2f} ± {row['lead_stderr']:.2f} ({row['best_rival']})" for row in leads)
    heads = (f"{size:g} % ({_pick(rows, cache_percent=size)[0]['cache_items']})" for size in sizes)
    return table(["policy", *heads], [*lines, ["lead", *told]])


def _reading(rows: list[EvictionRow], workload: str, rule: str) -> str:
    leads = _pick(rows, workload=workload, rule=rule)
    ahead = [row for row in leads if row["lead_percent"] > row["lead_stderr"]]
    behind = [row for row in leads if row["lead_percent"] < -row["lead_stderr"]]
    within = [row for row in leads if row not in ahead + behind]
    return (
        f"- {workload}, {rule}: ahead by more than a standard error at {_sizes(ahead)}, behind at {_sizes(behind)}, "
        f"within it at {_sizes(within)}."
    )


def _sizes(rows: Iterable[EvictionRow]) -> str:
    return ", ".join(f"{row['cache_percent']:g} %" for row in rows) or "no size"


def _unlimited(rows: list[EvictionRow]) -> str:
    lines = [[name, *_saved(_pick(rows, workload=name))] for name in _values(rows, "workload")]
    return table(["prompts", *_values(rows, "rule")], lines)


def _constants(rows: list[EvictionRow]) -> str:
    tried = dict.fromkeys(tuple(row["constants"]) for row in rows)
    lines = [
        [f"{rule}, {size:g} %", *_saved(_pick(rows, rule=rule, cache_percent=size))]
        for rule in _values(rows, "rule")
        for size in _values(rows, "cache_percent")
    ]
    return table(["fresh worth, silence power", *(f"{worth:g}, {power:g}" for worth, power in tried)], lines)


def _clock(rows: list[EvictionRow]) -> str:
    lines = [[rule, *_saved(_pick(rows, rule=rule))] for rule in _values(rows, "rule")]
    return table(["rule", *(f"every {spacing:g} s" for spacing in _values(rows, "spacing_s"))], lines)


def _plot(document: dict[str, Any], workloads: list[str], rules: list[str], to: Path) -> None:
    """Steps saved by cache size: a panel for each rule and workload, a line a policy."""
    figure, axes = subplots(len(rules), len(workloads), figsize=(4.2 * len(workloads), 3.6 * len(rules)))
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
    save_plot(figure, to)
