"""The page and the plots of policies, from their rows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.kit.machine import machine_line
from bench.kit.output import rows_table, table, write_page
from bench.kit.plots import save_plot, subplots
from t2i_simulator.lineage import bands
from t2i_simulator.report import Row, Timeline
from t2ictl.simulate_plot import plot_timelines

SHOWN = ("prompt-aware", "paper", "proteus", "pac", "nirvana", "clipper-ha")
BURST = "burst, SLO 5x"
THEIRS, OURS = "paper", "prompt-aware"
PEAK = 0.9
COLUMNS = {
    "policy": "{policy}",
    "violated %": "{violation_percent:.2f}",
    "shed %": "{shed_percent:.2f}",
    "quality %": "{quality_percent:.2f}",
    "picture %": "{picture_quality_percent:.2f}",
    "goodput %": "{goodput_percent:.2f}",
    "gap to bound": "{quality_gap:.2f}",
    "goodput gap": "{goodput_gap:.2f}",
    "p50 s": "{p50_s:.2f}",
    "p99 s": "{p99_s:.2f}",
    "skipped": "{mean_skipped_steps:.1f}",
    "steps run": "{mean_steps_run:.1f}",
    "moves/h": "{moves_per_hour:.0f}",
}


def write_report(
    rows: Mapping[str, Sequence[Row]],
    timelines: Mapping[str, Timeline],
    similarity: npt.NDArray[np.float64],
    folder: Path,
) -> None:
    """`timelines` are of the burst, `similarity` of each prompt to the nearest earlier one."""
    shares = [
        f"K={skipped} {100 * float(((similarity >= lower) & (similarity < upper)).mean()):.1f} %"
        for skipped, lower, upper in reversed(bands())
    ]
    write_page(
        folder / "policy.md",
        Path(__file__).with_name("page.md.in"),
        machine=machine_line(),
        num_traces=len({row.trace for row in rows["policies"]}),
        shares=", ".join(shares),
        ratios=_ratios(rows["policies"], timelines),
        **{name: _trace_tables(part) for name, part in rows.items()},
    )
    plot_timelines({name: timelines[name] for name in SHOWN}, BURST, folder / "policy-burst.png")
    _plot_loads(rows["policies"], folder / "policy-loads.png")


def _ratios(rows: Sequence[Row], timelines: Mapping[str, Timeline]) -> str:
    burst = {row.policy: row for row in rows if row.trace == BURST}
    at_peaks = {name: _at_peaks(course) for name, course in timelines.items()}
    violations = {name: max(row.violation_percent, 1e-9) for name, row in burst.items()}
    lines: list[tuple[str, str, dict[str, float]]] = []
    for other, target in (("clipper-ha", ">= 2.07"), ("proteus", ">= 1.18"), ("nirvana", ">= 1.63")):
        ratios = {name: value / at_peaks[other] for name, value in at_peaks.items()}
        lines.append((f"served in time at the peaks, over {other}", target, ratios))
    for other, target in (("clipper-ha", "<= 0.10"), ("nirvana", "<= 0.50"), ("paper", "<= 0.50")):
        ratios = {name: row.violation_percent / violations[other] for name, row in burst.items()}
        lines.append((f"violations over {other}", target, ratios))
    lines.append(("violations, %", "<= 2", {name: row.violation_percent for name, row in burst.items()}))
    lines.append(("quality, %", ">= 95", {name: row.quality_percent for name, row in burst.items()}))
    cells = [(label, target, f"{found[THEIRS]:.2f}", f"{found[OURS]:.2f}") for label, target, found in lines]
    return table(("ratio", "target", "paper's policy", "ours"), cells)


def _at_peaks(course: Timeline) -> float:
    """Images a minute in time, over the intervals with at least PEAK of the highest offered rate."""
    peak = course.offered_per_min >= PEAK * course.offered_per_min.max()
    return float((course.offered_per_min - course.violated_per_min)[peak].mean())


def _trace_tables(rows: Sequence[Row]) -> str:
    parts = []
    for trace, part in groupby(rows, key=lambda row: row.trace):
        of_trace = list(part)
        first = of_trace[0]
        setting = f"{first.offered} requests, {first.workers} workers, SLO {first.slo_s:.3g} s"
        parts += [f"### {trace}", setting, rows_table(COLUMNS, map(_cells, of_trace))]
    return "\n\n".join(parts)


def _cells(row: Row) -> dict[str, object]:
    """A gap that is not defined shows as nan: the bound keeps the pool's floor, and this policy served below it."""
    return asdict(row) | ({"quality_gap": float("nan")} if row.quality_gap is None else {})


def _plot_loads(rows: Sequence[Row], to: Path) -> None:
    """Violations and quality against load, a panel a file of arrivals."""
    points: dict[str, dict[str, list[tuple[float, Row]]]] = {}
    for row in rows:
        name, at, load = row.trace.rpartition(" at ")
        if at and row.policy in SHOWN:
            points.setdefault(name, {}).setdefault(row.policy, []).append((float(load), row))
    if not points:
        return
    figure, panels = subplots(2, len(points), figsize=(5.5 * len(points), 7), squeeze=False, sharex=True)
    for column, (name, policies) in enumerate(points.items()):
        for policy, course in policies.items():
            loads = [load for load, _ in course]
            panels[0][column].plot(loads, [row.violation_percent for _, row in course], marker="o", label=policy)
            panels[1][column].plot(loads, [row.quality_percent for _, row in course], marker="o", label=policy)
        panels[0][column].set_title(name)
        panels[1][column].set_xlabel("load, of the capacity at K=25")
    panels[0][0].set_ylabel("violated, %")
    panels[1][0].set_ylabel("quality of the served, %")
    panels[0][0].legend(fontsize=8)
    save_plot(figure, to)
