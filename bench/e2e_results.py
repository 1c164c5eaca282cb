"""bench/results/e2e.md and its plot, from build/bench/e2e.json and build/bench/e2e-auto.json: `make e2e-results`."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[1]
BUILD, RESULTS = ROOT / "build" / "bench", ROOT / "bench" / "results"
FIXED = ("engine", "sent", "served", "lost", "refused", "retried", "moved", "restarts", "recovery_s", "p50_s", "p99_s")
LEFT_OUT = {"cpus", "at", "codes", "over_slo", "max_s"}
COLOURS = {"planned": "tab:blue", "cache only": "tab:orange", "exact only": "tab:red"}
INTRO = """# End to end, on a real cluster

`make e2e` (and `make e2e-auto`, `make e2e-soak`) on one node with a kubelet, container images, the chart and gRPC
clients outside the pods. *engine*: `scenes` is the embedded model, `simulated` its timing, slowed down, without the
arithmetic. *lost*: accepted, no image in the end. *refused*: told so before it was accepted. *retried*: asked again
by the client, with the same request id; *moved*: by the gateway, to another worker. *recovery*: from the fault to the
end of the last request that noticed it. Other programs shared the machine: *load* is its load average over two cores,
and times are upper bounds.
"""


def table(scenarios: dict[str, dict[str, Any]]) -> str:
    """One row a scenario; what else it measured below."""
    head = ["scenario", *FIXED, "load"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, numbers in scenarios.items():
        cells = [str(numbers.get(key, "") if numbers.get(key) is not None else "-") for key in FIXED]
        lines.append("| " + " | ".join([name, *cells, str(numbers["load_average"])]) + " |")
    lines.append("")
    for name, numbers in scenarios.items():
        more = {key: value for key, value in numbers.items() if key not in {*FIXED, *LEFT_OUT, "load_average"}}
        if more:
            lines.append(f"- **{name}**: " + "; ".join(f"{key} {value}" for key, value in more.items()))
    return "\n".join(lines)


def plot(series: dict[str, Any], to: Path) -> None:
    """Offered and served, violations, quality, steps, over time."""
    figure, axes = plt.subplots(4, 1, figsize=(10, 11), sharex=True)
    names = ("served_rps", "violations_rps", "quality", "steps")
    titles = ("images a second (dashed: offered)", "violations a second", "mean score", "mean steps of an image")
    for axis, key, title in zip(axes, names, titles, strict=True):
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
    figure.tight_layout()
    figure.savefig(to, dpi=100)
    plt.close(figure)


def phases_table(series: dict[str, Any]) -> str:
    """Each run by phase of the load: requests, violations, quality against exact only."""
    lines = ["| run | phase | requests | violations | mean score | of exact only's |", "|---|---|---|---|---|---|"]
    exact = [score for _, _, score in phases_of(series, "exact only")]
    for run in series["runs"]:
        for number, (offered, bad, score) in enumerate(phases_of(series, run)):
            share = series["phases"][number][0]
            cells = (run, f"{share} of capacity", f"{offered:.0f}", f"{100 * bad / offered:.0f} %", f"{score:.3f}")
            lines.append(f"| {' | '.join(cells)} | {100 * score / exact[number]:.0f} % |")
    return "\n".join(lines) + "\n"


def phases_of(series: dict[str, Any], run: str) -> list[tuple[float, float, float]]:
    """Requests, violations and mean score of the images, for each phase."""
    found, begin_s = [], 0.0
    for _, seconds in series["phases"]:
        rows = [row for row in series["runs"][run]["windows"] if begin_s <= row["at_s"] < begin_s + seconds]
        width_s = 2 * series["runs"][run]["windows"][0]["at_s"]
        judged = [(row["quality"], row["served_rps"]) for row in rows if row["quality"] is not None]
        score = sum(quality * count for quality, count in judged) / sum(count for _, count in judged)
        offered, bad = (width_s * sum(row[key] for row in rows) for key in ("offered_rps", "violations_rps"))
        found.append((offered, bad, score))
        begin_s += seconds
    return found


def plot_soak(soak: dict[str, Any], to: Path) -> None:
    """What gateways and operators held over time, and when something was broken."""
    titles = {"mib": "memory (MiB)", "files": "open files", "tasks": "tasks of the event loops"}
    figure, axes = plt.subplots(len(titles) + 1, 1, figsize=(10, 9), sharex=True)
    rows = soak["rows"]
    minutes = [row["at_s"] / 60 for row in rows]
    for axis, (unit, title) in zip(axes[:-1], titles.items(), strict=True):
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
    figure.tight_layout()
    figure.savefig(to, dpi=100)
    plt.close(figure)


def main() -> None:
    """Write both."""
    text = INTRO + "\n" + table(json.loads((BUILD / "e2e.json").read_text())) + "\n"
    auto = BUILD / "e2e-auto.json"
    if auto.exists():
        series = json.loads(auto.read_text())
        plot(series, RESULTS / "e2e-auto.png")
        text += (
            f"\n## A load step\n\nTwo workers with the embedded model, {series['exact_rps']:.1f} exact images a second "
            f"at most, SLO {series['slo_s']:.0f} s; the load is 0.4, 1.6 and 0.4 of that. "
            "One run each; the scorer judges every image."
            "\n\n![served, violations, quality and steps over time](e2e-auto.png)\n\n"
        )
        text += phases_table(series)
    soak = BUILD / "e2e-soak.json"
    if soak.exists():
        plot_soak(json.loads(soak.read_text()), RESULTS / "e2e-soak.png")
        text += "\n## The soak\n\nAdded up over two gateways and two operators.\n\n![what they hold](e2e-soak.png)\n"
    (RESULTS / "e2e.md").write_text(text)


if __name__ == "__main__":
    main()
