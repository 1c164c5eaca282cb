"""The page and the plot of what each way to spend less loses."""

from pathlib import Path

import numpy as np

from bench.kit.machine import machine_line
from bench.kit.output import table, write_page
from bench.kit.plots import save_plot, subplots
from bench.levels.compared import ComparedWays
from bench.levels.ladders import ComparedLadders
from bench.levels.ways import ALL_WAYS, EXACT, PLAIN, WAYS
from bench.scenes.drawn import Mask
from bench.starts.compared import MeanWithError

#: Holes of the page: points by which the first way is better than the second, in pairs.
PAIRS = {
    "forecast3_over_unipc5": ("forecast 3", "unipc, 5 steps"),
    "chosen_over_unipc4": ("steps 0, 1, 4, 8", "unipc, 4 steps"),
    "chosen_over_forecast4": ("steps 0, 1, 4, 8", "forecast 4"),
    "chosen_guided_over_3": ("steps 0, 1, 4, 8, guided in 2", "3 steps"),
}
MARKS = dict(zip(WAYS, ("o-", "s-", "^", "P", "v", "x", "D"), strict=True))


def write_report(compared: ComparedWays, ladders: ComparedLadders, folder: Path) -> None:
    write_page(
        folder / "levels.md",
        Path(__file__).with_name("page.md.in"),
        machine=machine_line(),
        count=len(compared.similarity),
        one_ms=1e3 * compared.forward_s[1],
        two_ms=1e3 * compared.forward_s[2],
        frontier=_frontier(compared),
        bands=_bands(compared),
        ladders=_ladders(ladders),
        carried=_carried(ladders),
        exact_changed=compared.exact_changed,
        **{hole: _cell(compared.between(one, other)) for hole, (one, other) in PAIRS.items()},
    )
    _plot(compared, folder / "levels.png")


def _cell(value: MeanWithError) -> str:
    return f"{value.mean:.1f} ± {value.error:.1f}"


def _loss(compared: ComparedWays, name: str, inside: Mask) -> str:
    """Bold if it beats its plain rival by more than a standard error, italic if it loses by as much."""
    lead, cell = compared.lead(name, inside), _cell(compared.loss(name, inside))
    if name in (EXACT, *PLAIN) or abs(lead.mean) <= lead.error:
        return cell
    return f"**{cell}**" if lead.mean > 0 else f"*{cell}*"


def _frontier(compared: ComparedWays) -> str:
    rows = []
    exact_s = compared.alone_s(EXACT)
    for kind, ways in WAYS.items():
        for name, way in ways.items():
            inside = compared.everybody
            own = kind == "plain"
            rows.append(
                [
                    kind,
                    name,
                    way.forwards,
                    way.rows,
                    f"{100 * compared.alone_s(name) / exact_s:.0f} %",
                    _loss(compared, name, inside),
                    "" if own else compared.plain_rival(name),
                    "" if own else _cell(compared.lead(name, inside)),
                    f"{compared.distance[name]:.1f}",
                ]
            )
    head = ["kind", "way", "forwards", "rows", "time", "loss", "plain rival", "points better than it", "distance"]
    return table(head, rows)


def frontier_rows(compared: ComparedWays) -> list[dict[str, object]]:
    """Every way: what it runs, what it takes and what it loses."""
    exact_s = compared.alone_s(EXACT)
    return [
        {
            "kind": kind,
            "way": name,
            "forwards": way.forwards,
            "rows": way.rows,
            "time_percent": 100 * compared.alone_s(name) / exact_s,
            "loss": compared.loss(name, compared.everybody).mean,
            "error": compared.loss(name, compared.everybody).error,
        }
        for kind, ways in WAYS.items()
        for name, way in ways.items()
    ]


def _ladders(ladders: ComparedLadders) -> str:
    head = ["pool", "arrivals", "load", "ladder", "violated %", "quality %", "images in time x quality %"]
    key = lambda row: (row.model, row.trace != "burst", row.trace, row.load or 0.0)  # noqa: E731
    rows = sorted(ladders.rows, key=key)
    return table(
        head,
        [
            [
                row.model,
                row.trace.removeprefix("arrivals-").removesuffix("-ms"),
                "" if row.load is None else f"{row.load:g}x",
                row.ladder,
                f"{row.violation_percent:.2f}",
                f"{row.quality_percent:.2f}",
                f"{row.goodput_percent:.2f}",
            ]
            for row in rows
        ],
    )


def _carried(ladders: ComparedLadders) -> str:
    head = ["pool", "ladder", "load at 5 % violated", "and quality >= 95 %"]
    return table(
        head, [[row.model, row.ladder, f"{row.load:.2f}x", f"{row.good_load:.2f}x"] for row in ladders.carried]
    )


def _bands(compared: ComparedWays) -> str:
    names = [name for name, way in ALL_WAYS.items() if way.skipped or name in ("6 steps", "5 steps", "3 steps")]
    bands = compared.bands
    rows = [
        [name, ALL_WAYS[name].forwards, *(_loss(compared, name, inside) for inside in bands.values())] for name in names
    ]
    return table(["way", "forwards", *(f"{name} (n={inside.sum()})" for name, inside in bands.items())], rows)


def _plot(compared: ComparedWays, to: Path) -> None:
    figure, axis = subplots(figsize=(7.5, 4.8))
    exact_s = compared.alone_s(EXACT)
    for kind, ways in WAYS.items():
        if kind == "skip":
            continue  # they lose by similarity, not in the mean
        names = [name for name in ways if not ALL_WAYS[name].skipped]
        losses = [compared.loss(name, compared.everybody) for name in names]
        times = [100 * compared.alone_s(name) / exact_s for name in names]
        errors = np.array([one.error for one in losses])
        axis.errorbar(times, [one.mean for one in losses], errors, fmt=MARKS[kind], capsize=2, label=kind)
    axis.set_xlabel("time of one image alone, % of exact")
    axis.set_ylabel("points of quality lost")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save_plot(figure, to)
