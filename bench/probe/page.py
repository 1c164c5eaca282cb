"""The page and the plot of what early looks are worth."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.kit.machine import machine_line
from bench.kit.output import table, write_page
from bench.kit.plots import save_plot, subplots
from bench.probe.judged import CHANCE, FLOOR, JUDGED, KNOWN, ORACLE, PROBE, SHOWN, JudgedFork, LooksDrawn
from bench.starts.compared import MeanWithError

DECIDERS = (CHANCE, KNOWN, PROBE, JUDGED, ORACLE)
LINES = dict(zip(DECIDERS, ("k:", "s-", "o-", "^-", "k--"), strict=True))


def write_report(drawn: LooksDrawn, judged: Sequence[JudgedFork], minutes: float, folder: Path) -> None:
    write_page(
        folder / "probe.md",
        Path(__file__).with_name("page.md.in"),
        machine=machine_line(),
        minutes=minutes,
        count=len(drawn.exact),
        folds=len(np.unique(drawn.folds)),
        floor=FLOOR,
        foreseen=_foreseen(judged),
        below=_deciders(judged, lost=False),
        lost=_deciders(judged, lost=True),
        ways=_ways(drawn),
        reading="\n".join(_reading(judged)),
    )
    _plot(judged, folder / "probe.png")


def _cell(value: MeanWithError, digits: int = 1) -> str:
    return f"{value.mean:.{digits}f} ± {value.error:.{digits}f}"


def _foreseen(judged: Sequence[JudgedFork]) -> str:
    """Two lines a look."""
    lines = []
    for one in judged:
        for place, measure in enumerate(("explained share of loss", "area under the curve")):
            cells = (_cell(one.foreseen[name][place], 2) for name in SHOWN)
            lines.append([one.fork.look, one.fork.served, measure, *cells])
    return table(["look", "served", "measure", *SHOWN], lines)


def _deciders(judged: Sequence[JudgedFork], lost: bool) -> str:
    """Below the floor with the lead in pairs; or points lost."""
    lines = []
    for one in judged:
        values = one.lost if lost else one.below
        cells = [_cell(values[name]) for name in DECIDERS]
        lead = [] if lost else [_lead(one.better[PROBE]), _lead(one.better[JUDGED])]
        lines.append([one.fork.look, f"{one.fork.mean_steps:.0f}", *cells, *lead])
    heads = [] if lost else [f"{PROBE}, less", f"{JUDGED}, less"]
    return table(["look", "steps", *DECIDERS, *heads], lines)


def _lead(value: MeanWithError) -> str:
    """Bold outside two standard errors, italic if it is worse by as much."""
    mark = "" if abs(value.mean) <= 2 * value.error else "**" if value.mean > 0 else "*"
    return f"{mark}{value.mean:+.1f} ± {value.error:.1f}{mark}"


def _ways(drawn: LooksDrawn) -> str:
    lines = []
    for way, losses in drawn.losses.items():
        below = MeanWithError.of(100 * drawn.below(way))
        lines.append([way, _cell(MeanWithError.of(losses)), f"{losses.std(ddof=1):.1f}", _cell(below)])
    return table(["way", "loss", "spread of single images", f"% that lose more than {FLOOR:.0f}"], lines)


def _reading(judged: Sequence[JudgedFork]) -> list[str]:
    said = []
    for one in judged:
        lead, oracle = one.better[PROBE], one.better[ORACLE]
        pays = "pays" if lead.mean > 2 * lead.error else "does harm" if lead.mean < -2 * lead.error else "does not pay"
        shares = f"{one.below[PROBE].mean:.1f} % below the floor, {one.rival} {one.below[one.rival].mean:.1f} %"
        saved = f"It {pays} ({_lead(lead)}); an oracle would save {oracle.mean:.1f}."
        said.append(f"- {one.fork.look}: at {one.fork.mean_steps:.0f} steps the probe leaves {shares}. {saved}")
    return said


def _plot(judged: Sequence[JudgedFork], to: Path) -> None:
    """Images below the floor by mean steps, a panel a look."""
    figure, axes = subplots(2, -(-len(judged) // 2), figsize=(11.5, 7), squeeze=False)
    for axis, one in zip(axes.flat, judged, strict=False):
        for name, points in one.curves.items():
            axis.plot(*zip(*points, strict=True), LINES[name], markersize=3, linewidth=1, label=name)
        axis.plot(*zip(*one.fixed.values(), strict=True), "kD", markersize=4, label="one way for all")
        axis.axvline(one.fork.mean_steps, color="gray", linewidth=0.6)
        axis.set_title(f"look: {one.fork.look} computed", fontsize=9)
        axis.set_xlabel("computed steps, mean")
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    for axis in axes[:, 0]:
        axis.set_ylabel(f"% that lose more than {FLOOR:.0f} points")
    axes.flat[0].legend(fontsize=8)
    save_plot(figure, to)
