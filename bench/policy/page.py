"""The pages and the plot of policies, from their runs. Every claim on the page is computed from the rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from math import nan
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt

from bench.kit.machine import machine_line
from bench.kit.output import rows_table, table, write_page
from bench.policy.traces import BURST, PolicyRun, Trace
from t2i_simulator.lineage import bands
from t2i_simulator.report import Row, Timeline
from t2i_simulator.rivals.catalogue import OURS, TUNED
from t2ictl.simulate_plot import plot_timelines

SHOWN = (OURS, "paper", "paper-tuned-calm", "infaas-tuned", "nirvana", "clipper-ha")
PEAK = 0.9
NEAR_BOUND = 0.5  # points
MOST_BEHIND = 40  # cases shown
FIGURES = "{violation_percent:.2f} / {quality_percent:.2f} / {goodput_percent:.2f}"
COLUMNS = {
    "policy": "{policy}",
    "violated %": "{violation_percent:.2f}",
    "shed %": "{shed_percent:.2f}",
    "late %": "{late_percent:.2f}",
    "quality %": "{quality_percent:.2f}",
    "picture %": "{picture_quality_percent:.2f}",
    "goodput %": "{goodput_percent:.2f}",
    "quality to LP": "{quality_gap:.2f}",
    "goodput to LP": "{goodput_gap:.2f}",
    "p50 s": "{p50_s:.2f}",
    "p99 s": "{p99_s:.2f}",
    "steps run": "{mean_steps_run:.1f}",
}


@dataclass(frozen=True, slots=True)
class Case:
    """Every policy on one trace."""

    trace: Trace
    rows: dict[str, Row]

    @property
    def ours(self) -> Row:
        return self.rows[OURS]

    @property
    def part(self) -> str:
        return "held out" if self.trace.held_out else "development"

    def ahead(self) -> list[Row]:
        """The rows that ours does not hold against, the best goodput first."""
        others = [row for row in self.rows.values() if not self.ours.holds_against(row)]
        return sorted(others, key=lambda row: -row.goodput_percent)


def write_report(
    runs: Sequence[PolicyRun], similarity: npt.NDArray[np.float64], folder: Path, tables: Mapping[str, str]
) -> None:
    """`similarity` is of each prompt to the nearest earlier one."""
    believed = [run for run in runs if not run.trace.truth_name]
    single = cases_of(run for run in believed if run.trace.gateways == 1)
    several = cases_of(run for run in believed if run.trace.gateways > 1)
    wrong = cases_of(run for run in runs if run.trace.truth_name)
    shares = [
        f"K={skipped} {100 * float(((similarity >= lower) & (similarity < upper)).mean()):.1f} %"
        for skipped, lower, upper in reversed(bands())
    ]
    timelines = {
        run.row.policy: run.timeline
        for run in believed
        if run.timeline and run.trace == next(case.trace for case in single if case.trace.name == BURST)
    }
    write_page(
        folder / "policy.md",
        Path(__file__).with_name("page.md.in"),
        machine=machine_line(),
        shares=", ".join(shares),
        standing=standing(single),
        summary=summary(single),
        behind=behind(single),
        gateways=gateways_table(single, several),
        wrong=wrong_table(wrong),
        **tables,
        ratios=ratios(next(case for case in single if case.trace.name == BURST), timelines),
    )
    write_page(folder / "policy-rows.md", Path(__file__).with_name("rows.md.in"), tables=full_tables(single))
    plot_timelines({name: timelines[name] for name in SHOWN}, f"{BURST}, SLO 5x, skips", folder / "policy-burst.png")


def cases_of(runs: Iterable[PolicyRun]) -> list[Case]:
    """Runs of one trace stand together."""
    found = []
    for key, group in groupby(runs, key=lambda run: run.trace):
        found.append(Case(key, {run.row.policy: run.row for run in group}))
    return found


def standing(cases: Sequence[Case]) -> str:
    """Against how many rows ours holds, and how near it is to the bound."""
    lines = []
    for part in ("development", "held out"):
        own = [case for case in cases if case.part == part]
        pairs = sum(len(case.rows) - 1 for case in own)
        lost = sum(len(case.ahead()) for case in own)
        whole = sum(not case.ahead() for case in own)
        gaps = [case.ours.quality_gap for case in own if case.ours.quality_gap is not None]
        goodput_gaps = [case.ours.goodput_gap or 0.0 for case in own]
        lines.append(
            f"- *{part}*: {len(own)} settings. Ours is at least as good in both violations and quality, or better in "
            f"goodput, than {pairs - lost} of {pairs} rows, and than every row in {whole} settings. "
            f"Below the bound: quality {fmean(gaps):.2f} points on average, at most {NEAR_BOUND} in "
            f"{sum(gap <= NEAR_BOUND for gap in gaps)} of {len(gaps)}, at worst {max(gaps):.2f}; "
            f"goodput {fmean(goodput_gaps):.2f} points on average, at worst {max(goodput_gaps):.2f}."
        )
    return "\n".join(lines)


def summary(cases: Sequence[Case]) -> str:
    """A line for each part, ladder and SLO: means over its traces."""

    def setting(case: Case) -> tuple[str, str, int]:
        return case.part, case.trace.ladder, -case.trace.multiple

    lines: list[list[str]] = []
    for key, group in groupby(sorted(cases, key=setting), key=setting):
        own = list(group)
        part, ladder, multiple = key
        worst = max(own, key=lambda case: case.ours.goodput_gap or 0.0)
        lines.append(
            [
                f"{part}, {ladder}, {-multiple}x",
                _means([case.ours for case in own]),
                _best(own, lambda name: TUNED in name),
                _best(own, _is_published),
                _best(own, _is_ablation),
                f"{fmean(case.ours.goodput_gap or 0.0 for case in own):.2f}",
                f"{worst.ours.goodput_gap:.2f} ({worst.trace.name})",
            ]
        )
    head = ("setting", "ours", "best tuned rival", "best as published", "best ablation", "ours to LP", "at worst")
    return table(head, lines)


def _is_ablation(name: str) -> bool:
    return name.startswith("ours-")


def _is_published(name: str) -> bool:
    return name != OURS and TUNED not in name and not _is_ablation(name) and name != "fewer-steps-only"


def _means(rows: Sequence[Row]) -> str:
    violated, quality, goodput = (
        fmean(getattr(row, name) for row in rows)
        for name in ("violation_percent", "quality_percent", "goodput_percent")
    )
    return f"{violated:.2f} / {quality:.2f} / {goodput:.2f}"


def _best(cases: Sequence[Case], wanted: Callable[[str], bool]) -> str:
    """The policy of the most goodput over all these cases, with its means."""
    names = [name for name in cases[0].rows if wanted(name)]
    best = max(names, key=lambda name: fmean(case.rows[name].goodput_percent for case in cases))
    return f"{best} {_means([case.rows[best] for case in cases])}"


def behind(cases: Sequence[Case]) -> str:
    """Where a row is ahead of ours: the best of them, largest margin first."""
    lost = [(case, case.ahead()) for case in cases]
    lost = [(case, rows) for case, rows in lost if rows]
    if not lost:
        return "Nowhere."
    lost.sort(key=lambda item: item[0].ours.goodput_percent - item[1][0].goodput_percent)
    lines = [
        (
            f"{case.trace.name}, {case.trace.ladder}, {case.trace.multiple}x",
            case.part,
            FIGURES.format(**asdict(case.ours)),
            rows[0].policy,
            FIGURES.format(**asdict(rows[0])),
            len(rows),
        )
        for case, rows in lost[:MOST_BEHIND]
    ]
    head = ("trace", "part", "ours", "the best row ahead", "its figures", "rows ahead")
    more = f"\n\nAnd {len(lost) - MOST_BEHIND} settings more, by less." if len(lost) > MOST_BEHIND else ""
    return table(head, lines) + more


def gateways_table(single: Sequence[Case], several: Sequence[Case]) -> str:
    """Ours and a tuned rival with more gateways, beside one: means, and the trace that loses most."""
    counts = sorted({case.trace.gateways for case in several})
    more = {(case.trace.gateways, _but_gateways(case.trace)): case for case in several}

    def setting(case: Case) -> tuple[str, str]:
        return case.part, case.trace.ladder

    beside = [one for one in single if any((count, _but_gateways(one.trace)) in more for count in counts)]
    lines = []
    for (part, ladder), group in groupby(sorted(beside, key=setting), key=setting):
        own = [[case, *(more[count, _but_gateways(case.trace)] for count in counts)] for case in group]
        for name in own[0][-1].rows:
            rows = [[case.rows[name] for case in cases] for cases in own]
            lost = [max(of[0].goodput_percent - one.goodput_percent for one in of[1:]) for of in rows]
            worst = own[int(np.argmax(lost))][0].trace.name
            means = [_means(of) for of in zip(*rows, strict=True)]
            lines.append((f"{part}, {ladder}", name, *means, f"{max(lost):.2f} ({worst})"))
    return table(("traces", "policy", "1 gateway", *(f"{n} gateways" for n in counts), "most goodput lost"), lines)


def _but_gateways(trace: Trace) -> tuple[str, str, int]:
    return trace.name, trace.ladder, trace.multiple


def wrong_table(cases: Sequence[Case]) -> str:
    """Decisions believe the profile; the truth is another."""
    names = list(cases[0].rows) if cases else []
    lines = [
        (
            f"{case.trace.name}, {case.trace.ladder}",
            case.trace.truth_name,
            *(f"{case.rows[name].quality_percent:.2f}" for name in names),
            f"{_or_nan(case.ours.quality_gap):.2f}",
        )
        for case in cases
    ]
    return table(("trace", "true losses", *names, "ours to LP that knows them"), lines)


def ratios(case: Case, timelines: dict[str, Timeline]) -> str:
    """The lineage's ratios on the burst, and their ceiling: more than is offered cannot be served."""
    at_peaks = {name: _at_peaks(course) for name, course in timelines.items()}
    violations = {name: max(row.violation_percent, 1e-9) for name, row in case.rows.items()}
    peak = timelines[OURS].offered_per_min
    offered = float(peak[peak >= PEAK * peak.max()].mean())
    shown = [OURS, "paper", "paper-tuned-calm"]
    lines: list[tuple[object, ...]] = []
    for other in ("clipper-ha", "proteus", "nirvana"):
        found = [f"{at_peaks[name] / at_peaks[other]:.2f}" for name in shown]
        label = f"served in time at the peaks, over {other}"
        lines.append((label, *found, f"{offered / at_peaks[other]:.2f}"))
    lines.append(("share of what is offered at the peaks", *(f"{at_peaks[name] / offered:.3f}" for name in shown), 1))
    for other in ("clipper-ha", "nirvana", "paper", "paper-tuned-calm"):
        found = [f"{case.rows[name].violation_percent / violations[other]:.2f}" for name in shown]
        if violations[other] > 1e-3:
            lines.append((f"violations over {other}", *found, ""))
    return table(("ratio", *shown, "ceiling: all that is offered"), lines)


def _at_peaks(course: Timeline) -> float:
    """Images a minute in time, over the intervals with at least PEAK of the highest offered rate."""
    peak = course.offered_per_min >= PEAK * course.offered_per_min.max()
    return float((course.offered_per_min - course.violated_per_min)[peak].mean())


def full_tables(cases: Sequence[Case]) -> str:
    parts = []
    for case in cases:
        trace, first = case.trace, case.ours
        setting = f"{case.part}; {first.offered} requests, {first.workers} workers, SLO {first.slo_s:.3g} s"
        title = f"## {trace.name}, {trace.ladder}, SLO {trace.multiple}x"
        parts += [title, setting, rows_table(COLUMNS, _cells(case.rows.values()))]
    return "\n\n".join(parts)


def _cells(rows: Iterable[Row]) -> Iterator[dict[str, object]]:
    """A gap that is not defined shows as nan: the bound keeps the pool's floor, and this policy served below it."""
    for row in rows:
        gap = {"quality_gap": _or_nan(row.quality_gap), "late_percent": 100 * row.late / row.offered}
        yield asdict(row) | gap


def _or_nan(value: float | None) -> float:
    return nan if value is None else value
