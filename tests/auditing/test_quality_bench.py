"""`make bench-quality` on a real pool, of a few images: it leaves its figures, its page and its plot. A run that is cut
leaves those of its parts, and later runs of the other parts complete them."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.quality import run
from bench.quality.run import PARSER, largest_error, measure
from t2i_policy.audits import AuditSummary, BandOf
from t2i_policy.level import Level

FEW = ["--requests", "8", "--coarse", "8", "--burst", "4", "--drift", "8", "--pairs", "0"]
KEYS = {
    "images",
    "promise_error_points_max",
    "burst_quality_percent",
    "burst_violation_percent",
    "drift_audits",
    "audit_cost_p99_ms",
}
SUMMARY = {"num_audits": 40, "promised_loss": 0.1, "measured_loss": 0.08, "standard_error": 0.01}
LOOK = {"audits": 40, "seconds": 9.0, "measured_percent": 80.0, "promised_percent": 95.0}
PROMISES = {
    "capacity_rps": 7.7,
    "images": 40,
    "whole": SUMMARY,
    "bands": [{"level": "6 steps", "similarity_min": None, **SUMMARY}],
    "promise_error_points_max": 2.0,
    "promise_short_points_max": None,
    "burst_quality_percent": 90.0,
    "burst_violation_percent": 5.0,
    "calm_violation_percent": 0.0,
}
LOST = {"true_loss": 0.2, "true_error": 0.02, "profile_loss": 0.0}
DRIFT = {"drift_audits": 40, "drift": {"noticed": LOOK, "corrected": None, "looks": [LOOK], **LOST}}
COST = {"audit_cost_p99_ms": None, "costs": [], "runs": []}


@pytest.mark.process
@pytest.mark.timeout(1500)
async def test_it_runs_from_load_to_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "WARM", 4)
    options = PARSER.parse([*FEW, "--out", str(tmp_path / "quality.json"), "--results", str(tmp_path)])
    await measure(options, tmp_path / "pools")
    figures = json.loads((tmp_path / "quality.json").read_text())
    assert figures.keys() >= KEYS
    assert figures["images"] > 0
    assert "# Promised and measured quality" in (tmp_path / "quality.md").read_text()
    assert (tmp_path / "quality.png").stat().st_size > 0


async def test_what_is_cut_is_completed_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures after each part, the page after the last; a whole run keeps nothing of an earlier one."""
    figures = {"promises": PROMISES, "coarse": {"coarse": PROMISES}, "drift": None, "cost": COST}

    async def found(part: str) -> dict[str, Any]:
        if figures[part] is None:
            raise KeyboardInterrupt
        return figures[part]

    for part in figures:
        monkeypatch.setitem(run.MEASURES, part, lambda _options, _folder, part=part: found(part))
    out, page = tmp_path / "quality.json", tmp_path / "quality.md"

    async def ask(*more: str) -> dict[str, Any]:
        await measure(PARSER.parse(["--out", str(out), "--results", str(tmp_path), *more]), tmp_path)
        return json.loads(out.read_text())

    with pytest.raises(KeyboardInterrupt):
        await ask()
    cut = json.loads(out.read_text())
    assert cut["images"] == 40
    assert [*cut["parts"]] == ["promises", "coarse"]
    assert "drift" not in cut

    assert [*(await ask("--only", "cost"))["parts"]] == ["promises", "coarse", "cost"]
    assert not page.exists()

    figures["drift"] = DRIFT
    whole = await ask("--only", "drift")
    assert whole.items() >= {**PROMISES, **DRIFT, **COST}.items()
    assert "QualityKept` is False after 40 audits, 9 s" in page.read_text()

    figures["drift"] = None
    with pytest.raises(KeyboardInterrupt):
        await ask()
    assert [*json.loads(out.read_text())["parts"]] == ["promises", "coarse"]


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
