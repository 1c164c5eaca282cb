"""`bench/results/policy.md` and its plots, from the rows of `bench/policy.py`."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

from machine import machine_facts
from t2i_simulator.lineage import bands
from t2i_simulator.report import Row, Timeline
from t2ictl.simulate_plot import plot_timelines

mpl.use("Agg")
from matplotlib import pyplot as plt

SHOWN = ("prompt-aware", "paper", "proteus", "pac", "nirvana", "clipper-ha", "oracle")
BURST = "burst, SLO 5x"
THEIRS_OURS = ("paper", "prompt-aware")
PEAK = 0.9
COLUMNS = "| policy | violated % | shed % | quality % | to the oracle | p50 s | p99 s | skipped | steps run | moves/h |"


def write_report(
    tables: Mapping[str, Sequence[Row]],
    courses: Mapping[str, Timeline],
    similarity: npt.NDArray[np.float64],
    folder: Path,
) -> None:
    """Write the page and the plots."""
    rows = tables["policies"]
    shown = {name: courses[name] for name in SHOWN if name in courses}
    if shown:
        plot_timelines(shown, BURST, folder / "policy-burst.png")
    _plot_loads(rows, folder / "policy-loads.png")
    text = ["# Serving policies side by side", "", _preface(rows, similarity), "", *_headlines(rows, courses), ""]
    text += ["![burst](policy-burst.png)", "", "![loads](policy-loads.png)", ""]
    titles = {
        "policies": "Every policy",
        "ablations": "Parts of ours removed",
        "sensitivity": "If the profile is wrong",
    }
    for name, title in titles.items():
        text += [f"## {title}", ""]
        for trace, part in groupby(tables[name], key=lambda row: row.trace):
            text += _table(trace, list(part))
    (folder / "policy.md").write_text("\n".join(text).rstrip() + "\n")


def _preface(rows: Sequence[Row], similarity: npt.NDArray[np.float64]) -> str:
    facts, shares = machine_facts(), []
    for skipped, lower, upper in reversed(bands()):
        shares.append(f"K={skipped} {100 * float(((similarity >= lower) & (similarity < upper)).mean()):.1f} %")
    machine = f"{facts['processor']}, {facts['cores']} cores"
    return (
        f"`make bench-policy`, {machine}. {len({row.trace for row in rows})} traces, every policy with its "
        "defaults, caches empty at the start, one seed. Losses and step times of SDXL are assumed "
        "(`simulator/t2i_simulator/lineage.py` states each with its source); only the embedded model's are measured. "
        "Violated = late, shed or failed, of all offered. Quality = 100 - mean true loss of what was served, in "
        "percent; decisions never see it. To the oracle: points of quality below a policy that knows all arrivals; "
        "negative where it serves fewer images than the oracle and so can afford more. Best similarity to an earlier "
        "prompt of the list, by "
        f"NIRVANA's thresholds: {', '.join(shares)}."
    )


def _headlines(rows: Sequence[Row], courses: Mapping[str, Timeline]) -> Iterable[str]:
    """The lineage's ratios, for their policy and ours."""
    by_policy = {row.policy: row for row in rows if row.trace == BURST}
    if not {"prompt-aware", "paper", "clipper-ha", "nirvana", "proteus"} <= set(by_policy):
        return []
    lines = ["## The lineage's ratios on the burst (SLO 5x)", "", "| ratio | target | paper's policy | ours |"]
    lines.append("|---|---|---|---|")

    def add(label: str, target: str, value: "dict[str, float]") -> None:
        lines.append(f"| {label} | {target} | {value['paper']:.2f} | {value['prompt-aware']:.2f} |")

    for other, target in (("clipper-ha", ">= 2.07"), ("proteus", ">= 1.18"), ("nirvana", ">= 1.63")):
        base = _at_peaks(courses[other])
        add(
            f"served in time at the peaks, over {other}", target, {n: _at_peaks(courses[n]) / base for n in THEIRS_OURS}
        )
    for other, target in (("clipper-ha", "<= 0.10"), ("nirvana", "<= 0.50"), ("paper", "<= 0.50")):
        base = max(by_policy[other].violation_percent, 1e-9)
        violated = {name: by_policy[name].violation_percent / base for name in THEIRS_OURS}
        add(f"violations over {other}", target, violated)
    absolute = (("violations, %", "<= 2", "violation_percent"), ("quality, %", ">= 95", "quality_percent"))
    for label, target, field in absolute:
        add(label, target, {name: float(getattr(by_policy[name], field)) for name in THEIRS_OURS})
    return lines


def _at_peaks(course: Timeline) -> float:
    """Images a minute in time, over the intervals with at least PEAK of the highest offered rate."""
    peak = course.offered_per_min >= PEAK * course.offered_per_min.max()
    return float((course.offered_per_min - course.violated_per_min)[peak].mean())


def _table(trace: str, rows: Sequence[Row]) -> list[str]:
    first = rows[0]
    lines = [f"### {trace}", "", f"{first.offered} requests, {first.workers} workers, SLO {first.slo_s:.3g} s", ""]
    lines += [COLUMNS, "|---" * 10 + "|"]
    for row in rows:
        gap = "" if row.oracle_quality_gap is None else f"{row.oracle_quality_gap:.2f}"
        numbers = (row.violation_percent, row.shed_percent, row.quality_percent)
        times = f"{row.p50_s:.2f} | {row.p99_s:.2f} | {row.mean_skipped_steps:.1f} | {row.mean_steps_run:.1f}"
        figures = " | ".join(f"{value:.2f}" for value in numbers)
        lines.append(f"| {row.policy} | {figures} | {gap} | {times} | {row.moves_per_hour:.0f} |")
    return [*lines, ""]


def _plot_loads(rows: Sequence[Row], to: Path) -> None:
    """Violations and quality against load, a panel a file of arrivals."""
    points: dict[str, dict[str, list[tuple[float, Row]]]] = {}
    for row in rows:
        name, at, load = row.trace.rpartition(" at ")
        if at and row.policy in SHOWN:
            points.setdefault(name, {}).setdefault(row.policy, []).append((float(load), row))
    if not points:
        return
    figure, panels = plt.subplots(2, len(points), figsize=(5.5 * len(points), 7), squeeze=False, sharex=True)
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
    figure.tight_layout()
    figure.savefig(to, dpi=110)
    plt.close(figure)
