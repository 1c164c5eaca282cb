"""`make bench-quality` on a real pool, of a few images: it leaves its figures, its page and its plot. A run that is cut
leaves those of its parts, and later runs of the other parts complete them."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench.quality import run
from bench.quality.page import shortfall
from bench.quality.run import PARSER, largest_error, measure, p99_costs
from bench.quality.serving import SentCaption, as_audits
from t2i_policy.audits import AuditSummary, BandOf
from t2i_policy.band_loss import BandLoss
from t2i_policy.level import Level
from t2i_policy.profile import LevelProfile
from t2i_profiler.images import Sample
from t2i_protos.v1 import gateway_pb2
from t2i_runtime.level_messages import level_message
from t2ictl.client import Generated

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


def test_a_pool_that_keeps_more_than_it_promises_has_no_shortfall() -> None:
    """A negative number of points would have to be read twice."""
    assert shortfall(1.5) == "1.5 points"
    assert shortfall(-2.5) == "none, the closest band is 2.5 points better than promised"


SHORT = Level(0, 4)
PROFILE = LevelProfile(
    "m", "cpu", 12, (0.01,), 0.0, (BandLoss(SHORT, -1.0, 1.01, 0.12, 0.02, 100, diversity_loss=0.06),)
)


def sent(message: str, promised_percent: float, served: Level = SHORT) -> SentCaption:
    """A caption that was decided at the short schedule, and drawn at `served`."""
    decision = gateway_pb2.Decision(
        served=level_message(SHORT), message=message, expected_quality_percent=promised_percent
    )
    generated = Generated(b"", gateway_pb2.Accepted(decision=decision), gateway_pb2.Done(served=level_message(served)))
    return SentCaption(Sample("a caption", 1), generated, 0.1)


@pytest.fixture
def all_equally_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SentCaption, "quality", 0.8)


@pytest.mark.parametrize(
    ("message", "promised_percent"),
    [
        ("no similar prompt is cached; ...", 86.0),
        ("no similar prompt is cached, and this prompt was asked before with another seed; ...", 80.0),
        ("the nearest cached prompt has similarity 1.00 (all but these words) and another seed; ...", 80.0),
    ],
    ids=["new", "asked before", "all but these words"],
)
@pytest.mark.usefixtures("all_equally_good")
def test_promise_is_of_quality_alone(message: str, promised_percent: float) -> None:
    """A pair of images shows no diversity, so what a repeated prompt may lose of it is no part of what is compared."""
    one = sent(message, promised_percent)
    (audit,) = as_audits([one], [one], PROFILE)
    assert audit.promised_loss == pytest.approx(0.14)


@pytest.mark.usefixtures("all_equally_good")
def test_nothing_is_promised_of_a_level_that_was_not_decided() -> None:
    """A late latent: the image ran at another level than its promise is of."""
    one = sent("no similar prompt is cached; ...", 86.0, served=Level(0, 6))
    assert as_audits([one], [one], PROFILE) == []


def test_cost_of_audits_is_told_with_its_noise() -> None:
    """Each pair is one look at the difference; how far pairs lie apart says what a difference is worth."""
    rows = [
        {"pair": pair, "load": 0.5, "audits": audits, "p99_ms": p99_ms}
        for pair, (without, with_audits) in enumerate([(400.0, 430.0), (500.0, 490.0), (450.0, 460.0)])
        for audits, p99_ms in ((False, without), (True, with_audits))
    ]
    cost = p99_costs(rows, 0.5)
    assert (cost["p99_ms"], cost["p99_error_ms"]) == (pytest.approx(10.0), pytest.approx(20.0 / 3**0.5))
    assert p99_costs(rows[:2], 0.5)["p99_error_ms"] is None
