"""`make bench-models-real` on a real pool, of a few images: it leaves its figures and its page."""

import json
from pathlib import Path

import pytest

from bench.models_real import run
from bench.models_real.run import PARSER, JudgedModels, measure
from t2i_policy.audits import Audit, BandOf
from t2i_policy.level import Level

FEW = ["--requests", "6", "--burst", "4", "--demanded", "2"]
KEYS = {"images", "lost", "wrong_model", "quality_percent", "promise_error_points_max", "by_model"}
NAMES = {"": "full", "light": "light"}


@pytest.mark.process
@pytest.mark.timeout(1500)
async def test_it_runs_from_load_to_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both models draw what is demanded of them, and nothing is lost."""
    monkeypatch.setattr(run, "WARM", 4)
    options = PARSER.parse([*FEW, "--out", str(tmp_path / "models-real.json"), "--results", str(tmp_path)])
    await measure(options, tmp_path / "pool")
    figures = json.loads((tmp_path / "models-real.json").read_text())
    assert figures.keys() >= KEYS
    assert (figures["lost"], figures["wrong_model"]) == (0, 0)
    assert figures["images"] > 0
    assert figures["by_model"]["distilled"]["images"] >= 2
    assert "# Two models in one real pool" in (tmp_path / "models-real.md").read_text()


def test_errors_are_told_by_model_and_by_band() -> None:
    """A model's bands may be off in both directions and the model not; few images say nothing."""
    short, plain, light = Level(0, 6), Level(0, 4), Level(0, 4, model="light")
    losses = {short: 0.15, plain: 0.05, light: 0.13}
    audits = [Audit(BandOf(level, -1.0), 1 - lost, 1.0, 0.1, 0.1) for level, lost in losses.items() for _ in range(40)]
    audits += [Audit(BandOf(Level(0, 2, model="light"), -1.0), 0.1, 1.0, 0.1, 0.1)] * 2
    found = JudgedModels.of(audits, NAMES).figures
    assert found["promise_error_points_max"] == pytest.approx(5.0)
    assert found["by_model"]["full"]["measured_percent"] == pytest.approx(90.0)
    assert found["model_error_points_max"] == pytest.approx(100 * (40 * 0.03 + 2 * 0.8) / 42)
    assert {row["level"] for row in found["bands"]} == {"0/6", "0/4", "light:0/4", "light:0/2"}
