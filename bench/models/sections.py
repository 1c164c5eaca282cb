"""The page's sections of moves, of unlike devices and of a real pool, from figures alone. Every claim is computed."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.kit.output import rows_table
from bench.kit.plots import save_plot, subplots
from bench.models.moves import INTERVALS, RELOAD_S, STEP
from bench.models.pools import WORKERS

Rows = Sequence[dict[str, Any]]
MOVES = {
    "trace": "{trace}",
    "distilled workers at first": "{distilled}",
    "violated %, stay": "{stay[violation_percent]:.2f}",
    "moves": "{moves[violation_percent]:.2f}",
    "quality %, stay": "{stay[quality_percent]:.2f}",
    "moves ": "{moves[quality_percent]:.2f}",
    "goodput %, stay": "{stay[goodput_percent]:.2f}",
    "moves  ": "{moves[goodput_percent]:.2f}",
    "moves made": "{made}",
}
DEVICES = {
    "pool": "{pool}",
    "workers": "{held}",
    "late or failed until, s": "{late_until_s:.0f}",
    "quality back after, s": "{recovered_s:.0f}",
    "moves after the death": "{made}",
}
SERVED = {
    "pool": "{pool}",
    "prompts": "{whom}, {when}",
    "requests": "{requests}",
    "exact %": "{exact:.0f}",
    "skips %": "{bent:.0f}",
    "by the distilled %": "{distilled:.0f}",
    "violated %": "{violated:.2f}",
    "quality %": "{quality:.2f}",
}


def moves_section(rows: Rows) -> str:
    pairs = _pairs(rows)
    gains = [pair["moves"]["goodput_percent"] - pair["stay"]["goodput_percent"] for pair in pairs]
    worst = min(pairs, key=lambda pair: pair["moves"]["goodput_percent"] - pair["stay"]["goodput_percent"])
    told = (
        f"Moves change goodput by {fmean(gains):+.2f} points on average, from {min(gains):+.2f} "
        f"({worst['trace']}, {worst['distilled']} distilled at first) to {max(gains):+.2f}; "
        f"{fmean(pair['moves']['reloads'] for pair in pairs):.1f} moves in {rows[0]['minutes']:.0f} minutes."
    )
    return f"{rows_table(MOVES, pairs)}\n\n{told}"


def _pairs(rows: Rows) -> list[dict[str, Any]]:
    """A pool on a trace, with its workers that stay and its workers that move."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        pair = found.setdefault(
            (row["trace"], row["distilled"]), {"trace": row["trace"], "distilled": row["distilled"]}
        )
        pair[row["policy"]] = row
    for pair in found.values():
        made = [move["to"] for move in pair["moves"]["made_moves"]]
        pair["made"] = ", ".join(f"{made.count(to)} to {to}" for to in dict.fromkeys(made)) or "none"
    return list(found.values())


def plot_moves(rows: Rows, to: Path) -> None:
    """The load step: demand and distilled workers over time, and the quality of each minute."""
    own = [row for row in rows if row["trace"] == STEP]
    starts = list(dict.fromkeys(row["distilled"] for row in own))
    figure, axes = subplots(2, len(starts), figsize=(4.8 * len(starts), 5.2), squeeze=False, sharex=True)
    for column, start in enumerate(starts):
        above, below = axes[0][column], axes[1][column]
        for row in (row for row in own if row["distilled"] == start):
            minutes = [number * row["interval_s"] / 60 for number in range(INTERVALS)]
            below.plot(
                minutes,
                row["quality_course"][:INTERVALS],
                "-" if row["made_moves"] else "--",
                label=f"workers that {row['policy'].removesuffix('s')}",
            )
            if row["policy"] == "moves":
                above.plot(
                    minutes, [rate / 60 for rate in row["offered_per_min"][:INTERVALS]], color="0.6", label="requests/s"
                )
                at, held = [0.0], [start]
                for move in row["made_moves"]:
                    at.append(move["at_s"] / 60)
                    held.append(held[-1] + (-1 if move["to"] == "sdxl" else 1))
                twin = above.twinx()
                twin.step([*at, minutes[-1]], [*held, held[-1]], where="post", color="C1")
                twin.set_ylim(0, WORKERS)
                twin.set_ylabel("distilled workers, of 8", color="C1")
        above.set_title(f"{start} distilled at first, a reload takes {RELOAD_S:.0f} s", fontsize=9)
        above.set_ylabel("requests/s")
        below.set_xlabel("minutes")
        below.set_ylabel("quality of a minute's images, percent")
        below.grid(alpha=0.3)
        below.legend(fontsize=7)
    save_plot(figure, to)


def devices_section(rows: Rows) -> str:
    for row in rows:
        row["held"] = f"move, {row['reload_s']:.0f} s" if row["reload_s"] else "stay"
        after = [move for move in row["made_moves"] if move["at_s"] >= 0]
        told = [f"{move['group']} to {move['to']} after {move['at_s']:.0f} s" for move in after]
        row["made"] = "; ".join(told[:3]) + (" ..." if len(told) > 3 else "") or "none"
    served = [
        {"pool": f"{row['pool']}, {row['held']}", **part}
        for row in rows
        for part in sorted(row["served"], key=lambda part: part["whom"])
    ]
    return f"{rows_table(DEVICES, rows)}\n\n{rows_table(SERVED, served)}"


def real_section(figures: dict[str, Any]) -> str:
    if figures["promise_error_points_max"] is None:  # it did not run, or was cut off, or had few images
        return (
            "Not measured here: `lost` and `promise_error_points_max` come from a pool of two real models "
            "(`make bench-models-real`)."
        )
    return (
        f"Of {figures['images']} images of a pool of two real models {figures['lost']} were lost; the promised quality "
        f"was off by {figures['promise_error_points_max']:.2f} points at most."
    )


def cascade_reading(rows: Rows, ours: str) -> list[str]:
    """Routing beside our cascade: by SLO and load, mean goodput, violations and work."""
    lines = []
    settings = dict.fromkeys((row["multiple"], row["load"]) for row in rows)
    for multiple, load in settings:
        own = [
            row for row in rows if (row["multiple"], row["load"]) == (multiple, load) and 0 < row["distilled"] < WORKERS
        ]
        found = {}
        for policy in (ours, "ours-cascade", "ours-cascade, erring"):
            of = [row for row in own if row["policy"] == policy]
            if of:
                found[policy] = {
                    key: fmean(row[key] for row in of) for key in ("goodput_percent", "violation_percent", "work")
                }
        if len(found) == 3:
            told = "; ".join(
                "{policy} {goodput_percent:.2f} ({violation_percent:.2f} % violated, {work:.1f} steps an image)".format(
                    policy=policy, **one
                )
                for policy, one in found.items()
            )
            lines.append(f"- SLO {multiple}x, load {load}: {told}")
    return lines
