"""The page and the plot of promised against measured quality."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.kit.machine import machine_line
from bench.kit.output import rows_table, table, write_page
from bench.kit.plots import save_plot, subplots
from t2i_policy.audits import AuditSummary, BandOf
from t2i_policy.kept_promise import Z

BASE_STEPS = 12
RUNS = {
    "load": "{load}",
    "pair": "{pair}",
    "audits": "{audits}",
    "p50 ms": "{p50_ms:.0f}",
    "p99 ms": "{p99_ms:.0f}",
    "late, refused or failed %": "{violation_percent:.1f}",
}


def write_report(figures: Mapping[str, Any], harmless: int, folder: Path) -> None:
    """Of the figures of all parts. `harmless`: percent that count as no loss where levels are coarse."""
    whole, drift, coarse = AuditSummary(**figures["whole"]).quality, figures["drift"], figures["coarse"]
    write_page(
        folder / "quality.md",
        Path(__file__).with_name("page.md.in"),
        machine=machine_line(),
        minutes=sum(part["minutes"] for part in figures["parts"].values()),
        capacity=figures["capacity_rps"],
        images=figures["images"],
        promised=100 * whole.promised,
        measured=100 * whole.measured,
        reach=100 * whole.reach,
        error=points(figures["promise_error_points_max"]),
        short=shortfall(figures["promise_short_points_max"]),
        bands=bands_table(figures["bands"]),
        harmless=harmless,
        coarse_images=coarse["images"],
        coarse_error=points(coarse["promise_error_points_max"]),
        coarse_short=shortfall(coarse["promise_short_points_max"]),
        coarse_bands=bands_table(coarse["bands"]),
        coarse_calm=coarse["calm_violation_percent"],
        coarse_late=coarse["burst_violation_percent"],
        coarse_quality=coarse["burst_quality_percent"],
        burst_quality=figures["burst_quality_percent"],
        burst_violation=figures["burst_violation_percent"],
        calm_violation=figures["calm_violation_percent"],
        noticed=_when(drift["noticed"]),
        corrected=_when(drift["corrected"]),
        profile_loss=100 * drift["profile_loss"],
        true_loss=100 * drift["true_loss"],
        true_error=100 * drift["true_error"],
        runs=rows_table(RUNS, figures["runs"]),
        costs=", ".join(f"{_cost(cost)} at {cost['load']}" for cost in figures["costs"]),
    )
    _plot(figures, folder / "quality.png")


def _cost(cost: Mapping[str, Any]) -> str:
    """With one standard error, where there are pairs enough to tell it."""
    error = cost.get("p99_error_ms")
    return f"{cost['p99_ms']:+.0f}{'' if error is None else f' ± {error:.0f}'} ms"


def points(value: float | None) -> str:
    return "unknown, as no band has enough images" if value is None else f"{value:.1f} points"


def shortfall(value: float | None) -> str:
    """How far the worst band is below its promise; below 0, how far the closest one is above."""
    if value is None or value > 0:
        return points(value)
    return f"none, the closest band is {-value:.1f} points better than promised"


def _when(look: Mapping[str, Any] | None) -> str:
    return "not within the run" if look is None else f"after {look['audits']} audits, {look['seconds']:.0f} s"


def band_rows(bands: Mapping[BandOf, AuditSummary]) -> list[dict[str, Any]]:
    """As figures are kept."""
    return [
        {
            "level": band.level.label(BASE_STEPS),
            "similarity_min": band.similarity_min if band.level.needs_latent else None,
            **asdict(summary),
        }
        for band, summary in bands.items()
    ]


def bands_table(bands: Sequence[Mapping[str, Any]]) -> str:
    """A row for each level and band."""
    lines = []
    for row in bands:
        quality = _summary(row).quality
        lines.append(
            [
                row["level"],
                "" if row["similarity_min"] is None else f"{row['similarity_min']:.2f}",
                quality.num_audits,
                f"{100 * quality.promised:.1f}",
                f"{100 * quality.measured:.1f} ± {100 * quality.reach:.1f}",
            ]
        )
    return table(["level", "similarity from", "images", "promised %", "measured %"], lines)


def _summary(row: Mapping[str, Any]) -> AuditSummary:
    return AuditSummary(*(row[name] for name in AuditSummary.__slots__))


def _plot(figures: Mapping[str, Any], to: Path) -> None:
    """Promised against measured by band; quality over the drift."""
    figure, (left, right) = subplots(1, 2, figsize=(9.6, 4.2))
    shown = [one for one in map(_summary, [*figures["bands"], *figures["coarse"]["bands"]]) if one.num_audits > 1]
    left.errorbar(
        [100 * (1 - one.promised_loss) for one in shown],
        [100 * (1 - one.measured_loss) for one in shown],
        [100 * Z * one.standard_error for one in shown],
        fmt="o",
        capsize=2,
    )
    ends = (40, 115)
    left.plot(ends, ends, color="gray", linewidth=0.8, linestyle=":")
    left.set_xlabel("promised quality, % of exact")
    left.set_ylabel("measured quality, % of exact")
    left.set_title("levels and bands", fontsize=9)
    looks, true_loss = figures["drift"]["looks"], figures["drift"]["true_loss"]
    audits = [look["audits"] for look in looks]
    right.plot(audits, [look["measured_percent"] for look in looks], label="measured, recent audits")
    right.plot(audits, [look["promised_percent"] for look in looks], label="promised for the same")
    right.axhline(100 * (1 - true_loss), color="gray", linewidth=0.8, linestyle=":", label="the new captions")
    right.set_xlabel("audits since the captions changed")
    right.set_title("drift", fontsize=9)
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    save_plot(figure, to)
