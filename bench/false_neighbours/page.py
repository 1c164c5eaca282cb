"""The page of false neighbours, from its JSON, and its plot."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.false_neighbours.drawn import SKIPS
from bench.false_neighbours.text_pairs import TextPair
from bench.kit.machine import machine_line
from bench.kit.output import table, write_page
from bench.kit.plots import save_plot, subplots

Row = Mapping[str, Any]


def write_report(figures: Row, text: Sequence[TextPair], folder: Path) -> None:
    first, last = (by_edge([row for row in figures["text"] if row["kind"] == "all"])[edge] for edge in (0.90, 0.95))
    write_page(
        folder / "false-neighbours.md",
        Path(__file__).with_name("page.md.in"),
        machine=machine_line(),
        pairs=sum(not one.is_paraphrase for one in text),
        before=_percent(first["twins_near"]),
        after=_percent(first["twins_pass"]),
        before_95=_percent(last["twins_near"]),
        after_95=_percent(last["twins_pass"]),
        kept_before=_percent(first["controls_near"]),
        kept_after=_percent(first["controls_pass"]),
        text=_text_table(figures["text"]),
        rules=_rules_table(figures["rules"]),
        nearest=_nearest_table(figures["nearest"], figures["listed_prompts"]),
        captions_asked=figures["captions_asked"],
        captions=_captions_table(figures["captions"]),
        drawn_pairs=figures["drawn_pairs"],
        drawn_captions=figures["drawn_captions"],
        losses="\n\n".join(
            f"Cosine from {float(edge):.2f} on:\n\n{_loss_table(rows)}" for edge, rows in figures["losses"].items()
        ),
        explained=_explained_table(figures["explained"]),
        choices=_choices_table(figures["choices"]),
    )
    _plot(figures, folder / "false-neighbours.png")


def by_edge(rows: Iterable[Row]) -> dict[float, Row]:
    return {row["edge"]: row for row in rows}


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _kinds(rows: Sequence[Row]) -> dict[str, dict[float, Row]]:
    kinds = dict.fromkeys(row["kind"] for row in rows)
    return {kind: by_edge(row for row in rows if row["kind"] == kind) for kind in kinds}


def _text_table(rows: Sequence[Row]) -> str:
    head = ["kind", "n", "twins ≥ 0.90", "after", "twins ≥ 0.95", "after", "controls ≥ 0.90", "after", "words agree"]
    lines = []
    for kind, edges in _kinds(rows).items():
        first, last = edges[0.90], edges[0.95]
        cells = (first["twins_near"], first["twins_pass"], last["twins_near"], last["twins_pass"])
        controls = (first["controls_near"], first["controls_pass"], first["controls_agree"])
        lines.append([kind, first["pairs"], *map(_percent, (*cells, *controls))])
    return table(head, lines)


def _rules_table(rows: Sequence[Row]) -> str:
    cells = ("twins_pass", "controls_pass", "controls_agree")
    lines = [[row["rule"], *(_percent(row[cell]) for cell in cells)] for row in rows]
    return table(["rule", "twins taken", "controls taken", "of them, words agree"], lines)


def _nearest_table(rows: Sequence[Row], listed: int) -> str:
    if not rows:
        return "No list of prompts was given."
    head = [f"cosine of the nearest (of {listed} prompts)", "prompts", "words agree", "words differ", "unknown"]
    names = ("prompts", "agree", "differ", "unknown")
    lines = [[f"{row['low']:.2f} to {min(1.0, row['high']):.2f}", *(row[name] for name in names)] for row in rows]
    return table(head, lines)


def _captions_table(rows: Sequence[Row]) -> str:
    head = ["neighbour", "n", "≥ 0.90", "after", "≥ 0.95", "after"]
    lines = []
    kinds = _kinds(rows)
    for kind, edges in kinds.items():
        name = "all but paraphrases" if kind == "all" else kind
        lines.append([name, edges[0.90]["pairs"], *_near_and_passing(edges, "twins")])
    lines.append(["paraphrase (control)", kinds["all"][0.90]["controls"], *_near_and_passing(kinds["all"], "controls")])
    return table(head, lines)


def _near_and_passing(edges: Mapping[float, Row], sort: str) -> list[str]:
    return [_percent(edges[edge][f"{sort}_{what}"]) for edge in (0.90, 0.95) for what in ("near", "pass")]


def _loss_table(rows: Sequence[Row]) -> str:
    head = ["words", "pictures", "pairs", *(f"loss at K={skip}, %" for skip in SKIPS)]
    lines = [
        [row["words"], row["pictures"], row["pairs"]]
        + [f"{100 * row['losses'][skip]:.1f} ± {100 * row['errors'][skip]:.1f}" for skip in SKIPS]
        for row in rows
    ]
    return table(head, lines)


def _explained_table(rows: Mapping[str, Mapping[int, float]]) -> str:
    lines = [[name, *(f"{by_skip[skip]:.3f}" for skip in SKIPS)] for name, by_skip in rows.items()]
    return table(["foreseen by", *(f"K={skip}" for skip in SKIPS)], lines)


def _choices_table(rows: Sequence[Row]) -> str:
    head = ["tolerance %", "foreseen by", "steps saved %", "measured loss %", "other pictures started from"]
    lines = []
    for row in rows:
        loss = f"{100 * row['loss']:.1f} ± {100 * row['error']:.1f}"
        saved = f"{100 * row['saved']:.1f}"
        lines.append([f"{100 * row['tolerance']:.0f}", row["way"], saved, loss, _percent(row["wrong"])])
    return table(head, lines)


def _plot(figures: Row, to: Path) -> None:
    """Text pairs taken as near, by kind; and losses of the embedded model, by what words say."""
    figure, axes = subplots(1, 2, figsize=(12.5, 4.2))
    kinds = _kinds(figures["text"])
    bars = {
        "twins before": ("twins_near", "#d98880"), "twins after": ("twins_pass", "#922b21"),
        "paraphrases before": ("controls_near", "#a9cce3"), "paraphrases after": ("controls_pass", "#1f618d"),
    }  # fmt: skip
    for at, (label, (name, colour)) in enumerate(bars.items()):
        shown = [100 * edges[0.90][name] for edges in kinds.values()]
        axes[0].bar(np.arange(len(kinds)) + 0.2 * (at - 1.5), shown, 0.2, label=label, color=colour)
    axes[0].set_xticks(range(len(kinds)), list(kinds))
    axes[0].set_ylabel("taken as near at cosine 0.90, %")
    axes[0].set_title("minimal pairs of text, all-MiniLM-L6-v2", fontsize=10)
    axes[0].set_ylim(0, 130)
    axes[0].legend(fontsize=8, ncols=2)
    groups = figures["losses"]["0.8"]
    for at, skip in enumerate(SKIPS):
        places = np.arange(len(groups)) + 0.15 * (2 * at - 1)
        losses, errors = ([100 * row[name][skip] for row in groups] for name in ("losses", "errors"))
        axes[1].errorbar(places, losses, errors, fmt="os"[at], capsize=3, label=f"K={skip} of 12")
    names = [f"words {row['words']}\n{row['pictures']}\nn={row['pairs']}" for row in groups]
    axes[1].set_xticks(range(len(groups)), names, fontsize=7)
    axes[1].axhline(0, color="gray", linewidth=0.8)
    axes[1].set_ylabel("loss, % of exact quality")
    axes[1].set_title("embedded model, neighbours at cosine 0.80 and more", fontsize=10)
    axes[1].legend(fontsize=8)
    for axis in axes:
        axis.grid(alpha=0.3, axis="y")
    save_plot(figure, to)
