"""The page and the plot of pools with several models, from their figures alone. Every claim is computed."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.kit.machine import machine_line
from bench.kit.output import rows_table, write_page
from bench.kit.plots import save_plot, subplots
from bench.models.devices import LOAD as DEVICES_LOAD
from bench.models.moves import LOAD, MULTIPLE, RELOAD_S
from bench.models.pools import WORKERS
from bench.models.sections import cascade_reading, devices_section, moves_section, plot_moves, real_section

Rows = Sequence[dict[str, Any]]
OURS = "prompt-aware"
PLANS = (
    "p50 {p50_cpu_ms:.0f} ms, p99 {p99_cpu_ms:.0f} ms of one core (by the wall, with what else ran: {p50_wall_ms:.0f} "
    "and {p99_wall_ms:.0f} ms) in {samples} plans ({how})"
)
MOVE_TIMES = "p50 {p50_cpu_ms:.0f} ms, p99 {p99_cpu_ms:.0f} ms of one core, {moved} of {samples} with a move"
COLUMNS = {
    "workers with SDXL / distilled": "{pool}",
    "policy": "{policy}",
    "violated %": "{violation_percent:.2f}",
    "quality %": "{quality_percent:.2f}",
    "goodput %": "{goodput_percent:.2f}",
    "by the distilled %": "{distilled_share:.0f}",
    "p99 s": "{p99_s:.1f}",
}


def write_report(figures: dict[str, Any], folder: Path) -> None:
    rows: Rows = figures["rows"]
    plans = figures["plans"]
    names = dict.fromkeys(row["trace"] for row in rows)
    write_page(
        folder / "models.md",
        Path(__file__).with_name("page.md.in"),
        machine=machine_line(),
        traces=", ".join(names),
        count=max(row["offered"] for row in rows),
        tables="\n\n".join(
            f"## SLO {multiple}x, load {load}\n\n{rows_table(COLUMNS, means(rows, multiple, load))}"
            for multiple in _values(rows, "multiple")
            for load in _values(rows, "load")
        ),
        reading="\n".join(reading(figures)),
        cascade="\n".join(cascade_reading(rows, OURS)),
        minutes=figures["moves"][0]["minutes"],
        moves_load=LOAD,
        moves_multiple=MULTIPLE,
        reload_s=RELOAD_S,
        devices_load=DEVICES_LOAD,
        moves=moves_section(figures["moves"]),
        devices=devices_section(figures["devices"]),
        real=real_section(figures),
        move_times=MOVE_TIMES.format(**figures["move_times"]),
        plans=PLANS.format(**plans, how=", ".join(f"{count} {name}" for name, count in plans["methods"].items())),
    )
    _plot(rows, folder / "models.png")
    plot_moves(figures["moves"], folder / "models-moves.png")


def _values(rows: Rows, key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def means(rows: Rows, multiple: int, load: float) -> list[dict[str, Any]]:
    """A row for each pool and policy: means over the traces."""
    found = []
    own = [row for row in rows if (row["multiple"], row["load"]) == (multiple, load)]
    for distilled, policy in dict.fromkeys((row["distilled"], row["policy"]) for row in own):
        of = [row for row in own if (row["distilled"], row["policy"]) == (distilled, policy)]
        names = ("violation_percent", "quality_percent", "goodput_percent", "p99_s")
        mean = {name: fmean(row[name] for row in of) for name in names}
        share = 100 * fmean(row["distilled_share"] for row in of)
        pool = f"{WORKERS - distilled} / {distilled}"
        found.append({"distilled": distilled, "pool": pool, "policy": policy, "distilled_share": share, **mean})
    return found


def reading(figures: dict[str, Any]) -> list[str]:
    """What the rows say, computed."""
    rows: Rows = figures["rows"]
    lines = [
        f"- The joint plan's shift map is worth {figures['shift_map_worth_points']:+.2f} points of goodput beside "
        f"backlogs alone, the plan's prices {figures['joint_prices_worth_points']:+.2f}: means over all pools of "
        "several models, loads, SLOs and traces."
    ]
    for multiple in _values(rows, "multiple"):
        for load in _values(rows, "load"):
            best = sorted(means(rows, multiple, load), key=lambda row: -row["goodput_percent"])
            own = next((row for row in best if row["policy"] == OURS and "0" not in row["pool"].split(" / ")), best[0])
            rivals = [row for row in best if row["policy"] != OURS and not row["policy"].startswith("ours-")]
            single = [row for row in best if "0" in row["pool"].split(" / ")]
            told = [_told(kind, of) for kind, of in (("rival", rivals), ("pool of one model", single)) if of]
            lines.append(
                f"- SLO {multiple}x, load {load}: ours at best {own['goodput_percent']:.2f} ({own['pool']}); "
                + "; ".join(told)
            )
    return lines


def _told(kind: str, rows: Rows) -> str:
    best = max(rows, key=lambda row: row["goodput_percent"])
    return f"best {kind}: {best['policy']} {best['goodput_percent']:.2f} ({best['pool']})"


def _plot(rows: Rows, to: Path) -> None:
    """Goodput by load: a panel for each pool, a line a policy; means over SLOs and traces."""
    pools = [one for one in _values(rows, "distilled") if 0 < one < WORKERS]
    loads = _values(rows, "load")
    figure, axes = subplots(1, len(pools), figsize=(4.4 * len(pools), 3.8), squeeze=False)
    for axis, distilled in zip(axes[0], pools, strict=True):
        lines = {policy: (distilled, policy) for policy in _values(rows, "policy")}
        alone = {
            f"only {'SDXL' if one == 0 else 'the distilled'}": (one, OURS)
            for one in (0, WORKERS)
            if one in _values(rows, "distilled")
        }
        lines |= alone
        for name, (held, policy) in lines.items():
            of = [[row for row in rows if (row["distilled"], row["policy"], row["load"]) == (held, policy, load)]
                  for load in loads]  # fmt: skip
            goodput = [fmean(row["goodput_percent"] for row in at) for at in of]
            style = "o-" if "ours" in policy or policy == OURS else "s--"
            if name in alone:
                axis.plot(loads, goodput, "^:", color="black" if held == 0 else "0.6", label=name)
            else:
                axis.plot(loads, goodput, style, markersize=4, label=name)
        axis.set_title(f"{WORKERS - distilled} workers with SDXL, {distilled} distilled", fontsize=9)
        axis.set_xlabel("load")
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("goodput, percent")
    axes[0][0].legend(fontsize=6)
    save_plot(figure, to)
