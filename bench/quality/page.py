"""The page and the plot of promised against measured quality."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.kit.machine import machine_line
from bench.kit.output import rows_table, table, write_page
from bench.kit.plots import save_plot, subplots
from bench.quality.drift import DriftFound, DriftLook
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


def write_report(
    promises: Mapping[str, Any],
    drift: DriftFound,
    rows: Sequence[Mapping[str, Any]],
    costs: Mapping[float, float],
    *,
    minutes: float,
    folder: Path,
) -> None:
    whole = promises["whole"].quality
    write_page(
        folder / "quality.md",
        Path(__file__).with_name("page.md.in"),
        machine=machine_line(),
        minutes=minutes,
        capacity=promises["capacity_rps"],
        images=promises["images"],
        promised=100 * whole.promised,
        measured=100 * whole.measured,
        reach=100 * whole.reach,
        error=points(promises["promise_error_points_max"]),
        short=points(promises["promise_short_points_max"]),
        bands=bands_table(promises["bands"]),
        burst_quality=promises["burst_quality_percent"],
        burst_violation=promises["burst_violation_percent"],
        calm_violation=promises["calm_violation_percent"],
        noticed=_when(drift.noticed),
        corrected=_when(drift.corrected),
        profile_loss=100 * drift.profile_loss,
        true_loss=100 * drift.true_loss,
        true_error=100 * drift.true_error,
        runs=rows_table(RUNS, rows),
        costs=", ".join(f"{cost:+.0f} ms at {load}" for load, cost in costs.items()),
    )
    _plot(promises, drift, folder / "quality.png")


def points(value: float | None) -> str:
    return "unknown, as no band has enough images" if value is None else f"{value:.1f} points"


def _when(look: DriftLook | None) -> str:
    return "not within the run" if look is None else f"after {look.audits} audits, {look.seconds:.0f} s"


def bands_table(bands: Mapping[BandOf, AuditSummary]) -> str:
    """A row for each level and band."""
    lines = []
    for band, summary in bands.items():
        near = f"{band.similarity_min:.2f}" if band.level.needs_latent else ""
        quality = summary.quality
        lines.append(
            [
                band.level.label(BASE_STEPS),
                near,
                summary.num_audits,
                f"{100 * quality.promised:.1f}",
                f"{100 * quality.measured:.1f} ± {100 * quality.reach:.1f}",
            ]
        )
    return table(["level", "similarity from", "images", "promised %", "measured %"], lines)


def _plot(promises: Mapping[str, Any], drift: DriftFound, to: Path) -> None:
    """Promised against measured by band; quality over the drift."""
    figure, (left, right) = subplots(1, 2, figsize=(9.6, 4.2))
    shown = [one for one in promises["bands"].values() if one.num_audits > 1]
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
    audits = [look.audits for look in drift.looks]
    right.plot(audits, [look.measured_percent for look in drift.looks], label="measured, recent audits")
    right.plot(audits, [look.promised_percent for look in drift.looks], label="promised for the same")
    right.axhline(100 * (1 - drift.true_loss), color="gray", linewidth=0.8, linestyle=":", label="the new captions")
    right.set_xlabel("audits since the captions changed")
    right.set_title("drift", fontsize=9)
    right.legend(fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    save_plot(figure, to)
