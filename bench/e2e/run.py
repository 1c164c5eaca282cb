"""bench/results/e2e.md and its plots, from what `make e2e`, `e2e-auto` and `e2e-soak` measured: `make e2e-results`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.kit.arguments import BenchParser
from bench.kit.output import fill, table, write_page
from bench.kit.places import BUILD
from bench.kit.plots import save_plot, subplots

HERE = Path(__file__).parent
FIXED = ("engine", "sent", "served", "lost", "refused", "retried", "moved", "restarts", "recovery_s", "p50_s", "p99_s")
LEFT_OUT = {"cpus", "at", "codes", "over_slo", "max_s", "load_average"}
COLOURS = {"planned": "tab:blue", "ladder of before": "tab:green", "cache only": "tab:orange", "exact only": "tab:red"}
AUTO_TITLES = {
    "served_rps": "images a second (dashed: offered)",
    "violations_rps": "violations a second",
    "quality": "mean score",
    "steps": "mean steps of an image",
}
SOAK_TITLES = {"mib": "memory (MiB)", "files": "open files", "tasks": "tasks of the event loops"}
Measured = dict[str, Any]
PARSER = BenchParser(__doc__, "e2e", quick={}, page=True)
PARSER.prog = "make e2e-results"
PARSER.add_argument("--measured", type=Path, default=BUILD, help="folder of e2e.json, e2e-auto.json, e2e-soak.json")


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """Of one phase of the load: requests, those that violated the SLO, and the mean score of images."""

    requests: float
    violations: float
    score: float


def scenario_cells(name: str, numbers: Measured) -> list[str]:
    cells = ("-" if numbers.get(key) is None else str(numbers[key]) for key in FIXED)
    return [name, *cells, str(numbers["load_average"])]


def more_of(name: str, numbers: Measured) -> str:
    more = {key: value for key, value in numbers.items() if key not in {*FIXED, *LEFT_OUT}}
    return f"- **{name}**: " + "; ".join(f"{key} {value}" for key, value in more.items()) if more else ""


def phases_of(series: Measured, run: str) -> list[PhaseResult]:
    found, begin_s = [], 0.0
    windows = series["runs"][run]["windows"]
    width_s = 2 * windows[0]["at_s"]
    for _, seconds in series["phases"]:
        rows = [row for row in windows if begin_s <= row["at_s"] < begin_s + seconds]
        judged = [(row["quality"], row["served_rps"]) for row in rows if row["quality"] is not None]
        score = sum(quality * count for quality, count in judged) / sum(count for _, count in judged)
        requests, violations = (width_s * sum(row[key] for row in rows) for key in ("offered_rps", "violations_rps"))
        found.append(PhaseResult(requests, violations, score))
        begin_s += seconds
    return found


def phases_table(series: Measured) -> str:
    """Each run by phase of the load: requests, violations, quality against exact only."""
    exact, lines = phases_of(series, "exact only"), []
    for run in series["runs"]:
        for (share, _), one, best in zip(series["phases"], phases_of(series, run), exact, strict=True):
            violated = f"{100 * one.violations / one.requests:.0f} %"
            scores = (f"{one.score:.3f}", f"{100 * one.score / best.score:.0f} %")
            lines.append([run, f"{share} of capacity", f"{one.requests:.0f}", violated, *scores])
    return table(("run", "phase", "requests", "violations", "mean score", "of exact only's"), lines)


def plot_auto(series: Measured, to: Path) -> None:
    """Offered and served, violations, quality, steps, over time."""
    figure, axes = subplots(len(AUTO_TITLES), 1, figsize=(10, 11), sharex=True)
    for axis, (key, title) in zip(axes, AUTO_TITLES.items(), strict=True):
        for run, numbers in series["runs"].items():
            rows = [row for row in numbers["windows"] if row[key] is not None]
            axis.plot([row["at_s"] for row in rows], [row[key] for row in rows], label=run, color=COLOURS[run])
        axis.set_title(title, fontsize=10, loc="left")
    offered = series["runs"]["planned"]["windows"]
    axes[0].plot([row["at_s"] for row in offered], [row["offered_rps"] for row in offered], "k--", linewidth=1)
    axes[0].legend()
    for axis in axes:
        axis.set_ylim(bottom=0)
    for at_s, mix in series["runs"]["planned"]["mixes"]:
        axes[3].axvline(at_s, color="gray", linewidth=0.6)
        axes[3].text(at_s, axes[3].get_ylim()[1], mix, fontsize=7, rotation=90, va="top")
    axes[3].set_xlabel("seconds (grey: the planner's mix changes)")
    save_plot(figure, to, dpi=100)


def plot_soak(soak: Measured, to: Path) -> None:
    """What gateways and operators held over time, and when something was broken."""
    figure, axes = subplots(len(SOAK_TITLES) + 1, 1, figsize=(10, 9), sharex=True)
    rows = soak["rows"]
    minutes = [row["at_s"] / 60 for row in rows]
    for axis, (unit, title) in zip(axes[:-1], SOAK_TITLES.items(), strict=True):
        for component in ("gateway", "operator"):
            axis.plot(minutes, [row[f"{component}_{unit}"] for row in rows], label=f"{component}s")
        axis.set_title(title, fontsize=10, loc="left")
    axes[-1].plot(minutes, [row["watch_age_s"] for row in rows], color="tab:green")
    axes[-1].set_title("seconds since a gateway's most silent watch was heard", fontsize=10, loc="left")
    for axis in axes:
        axis.set_ylim(bottom=0)
        for at_s, _ in soak["faults"]:
            axis.axvline(at_s / 60, color="gray", linewidth=0.5)
    axes[0].legend()
    axes[-1].set_xlabel("minutes (grey: a worker killed, frozen, or cut off from a gateway)")
    save_plot(figure, to, dpi=100)


def main() -> None:
    options = PARSER.parse()
    scenarios = json.loads((options.measured / "e2e.json").read_text())
    parts = ""
    auto, soak = (options.measured / f"e2e-{name}.json" for name in ("auto", "soak"))
    if auto.exists():
        series = json.loads(auto.read_text())
        plot_auto(series, options.results / "e2e-auto.png")
        facts = {key: series[key] for key in ("exact_rps", "slo_s")}
        parts += fill(HERE / "auto.md.in", **facts, phases=phases_table(series))
    if soak.exists():
        plot_soak(json.loads(soak.read_text()), options.results / "e2e-soak.png")
        parts += fill(HERE / "soak.md.in")
    write_page(
        options.results / "e2e.md",
        HERE / "page.md.in",
        scenarios=table(["scenario", *FIXED, "load"], (scenario_cells(*one) for one in scenarios.items())),
        more="\n".join(filter(None, (more_of(*one) for one in scenarios.items()))),
        parts=parts,
    )


if __name__ == "__main__":
    main()
