"""The page of two models in one real pool, from the figures alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.kit.machine import machine_line
from bench.kit.output import rows_table, write_page
from bench.quality.page import BASE_STEPS as BASE_STEPS
from bench.quality.page import band_rows, bands_table, points
from t2i_policy.audits import AuditSummary, BandOf

PARTS = {
    "part": "{part}",
    "requests": "{sent}",
    "images": "{images}",
    "lost": "{lost}",
    "refused": "{refused}",
    "late, refused or failed %": "{late_refused_or_failed_percent:.1f}",
    "by the distilled %": "{by_distilled_percent:.0f}",
}
MODELS = {
    "model": "{model}",
    "images": "{images}",
    "promised %": "{promised_percent:.1f}",
    "measured %": "{measured_percent:.1f} ± {reach_points:.1f}",
}


def write_report(figures: Mapping[str, Any], bands: Mapping[BandOf, AuditSummary], folder: Path) -> None:
    rates = figures["capacity_rps"]
    write_page(
        folder / "models-real.md",
        Path(__file__).with_name("page.md.in"),
        machine=machine_line(),
        minutes=figures["minutes"],
        load_average=figures["load_average"],
        capacity=" and ".join(f"{rate:.1f} by {name}" for name, rate in rates.items()),
        images=figures["images"],
        lost=figures["lost"],
        wrong=figures["wrong_model"],
        quality=figures["quality_percent"],
        parts=rows_table(PARTS, ({"part": name, **row} for name, row in figures["parts"].items())),
        models=rows_table(MODELS, ({"model": name, **row} for name, row in figures["by_model"].items())),
        model_error=points(figures["model_error_points_max"]),
        error=points(figures["promise_error_points_max"]),
        short=points(figures["promise_short_points_max"]),
        bands=bands_table(band_rows(bands)),
    )
