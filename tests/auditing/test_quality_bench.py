"""`make bench-quality` on a real pool, of a few images: it leaves its figures, its page and its plot."""

import json
from pathlib import Path

import pytest

from bench.quality import run
from bench.quality.run import PARSER, largest_error, measure
from t2i_policy.audits import AuditSummary, BandOf
from t2i_policy.level import Level

FEW = ["--requests", "8", "--burst", "4", "--drift", "8", "--pairs", "0"]
KEYS = {
    "images",
    "promise_error_points_max",
    "burst_quality_percent",
    "burst_violation_percent",
    "drift_audits",
    "audit_cost_p99_ms",
}


@pytest.mark.process
async def test_it_runs_from_load_to_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "WARM", 4)
    options = PARSER.parse([*FEW, "--out", str(tmp_path / "quality.json"), "--results", str(tmp_path)])
    await measure(options, tmp_path / "pools")
    figures = json.loads((tmp_path / "quality.json").read_text())
    assert figures.keys() >= KEYS
    assert figures["images"] > 0
    assert "# Promised and measured quality" in (tmp_path / "quality.md").read_text()
    assert (tmp_path / "quality.png").stat().st_size > 0


def test_errors_are_told_of_bands_with_enough_images() -> None:
    """In points; a band that is better than promised is off as well, but not short."""
    level = Level(0, 6)
    bands = {
        BandOf(level, -1.0): AuditSummary(100, 0.10, 0.12, 0.01),
        BandOf(level, 0.5): AuditSummary(100, 0.10, 0.04, 0.01),
        BandOf(level, 0.9): AuditSummary(5, 0.10, 0.90, 0.2),
    }
    assert largest_error(bands) == pytest.approx(6.0)
    assert largest_error(bands, short=True) == pytest.approx(2.0)
    assert largest_error({}) is None
