"""What a profile's file says stays what it says: stored ones, and the corrections that audits added, stay in force."""

import hashlib
from pathlib import Path

import pytest

from t2i_policy.image_size import ImageSize, SizeCost
from t2i_policy.judge_record import JudgeRecord
from t2i_policy.level import Level
from t2i_policy.measured_with import MeasuredWith
from t2i_policy.model_section import ModelSection
from t2i_policy.predictor import CurvePoint, LevelPredictor, Predictor, Term
from t2i_policy.profile import BandLoss, JudgedLosses, LevelCost, LevelProfile, VariantLosses
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_policy.twin_loss import TwinLoss

BASE = 20
SKIP, SHORT, FORECAST, FEW = Level(10, BASE), Level(0, 8), Level(0, BASE, 2, 10), Level(0, 4, model="few")
LOSSES = (
    BandLoss(SKIP, -1.0, 0.8, 0.2, 0.01, 50, 0.3, 0.02, TwinLoss(0.4, 0.05, 9), 0.4),
    BandLoss(SKIP, 0.8, 1.01, 0.05, 0.005, 40),
    BandLoss(SHORT, -1.0, 1.01, 0.03, 0.002, 90, 0.0),
)
TERM = Term("words", mean=3.0, low=2.0, high=5.0, weight=0.02, margin=0.01)
CURVE = (CurvePoint(0.4, 0.5, 0.05), CurvePoint(1.0, 0.0, 0.01))
#: All that a file can say.
FULL = LevelProfile(
    model_digest="digest",
    device="A10G",
    base_steps=BASE,
    step_s=(0.1, 0.15),
    fixed_s=0.02,
    losses=LOSSES,
    predictor=Predictor((LevelPredictor(SKIP, CURVE, (TERM,), 400),)),
    embedder_digest="embedder",
    sizes=(SizeCost(ImageSize(64, 32), 1.5),),
    costs=(LevelCost(FORECAST, 7.25),),
    judge=JudgeRecord("pickscore", "hf://a/b", "11"),
    others=(JudgedLosses(JudgeRecord("lpips", "hf://c/d", "12"), LOSSES[2:]),),
    variants=(VariantLosses(64, 32, "", LOSSES[2:]), VariantLosses(0, 0, "pixel", LOSSES[2:])),
    models=(
        ModelSection("few", 4, (0.05,), 0.01, (BandLoss(FEW, -1.0, 1.01, 0.1, 0.01, 60),), "other", MeasuredWith(1.0)),
    ),
    measured_with=MeasuredWith(7.5, "bf16", ("pixel",)),
)
SHIPPED = sorted(Path(__file__).parents[2].glob("*/t2i_*/*/*profile*.json")) + sorted(
    Path(__file__).parents[2].glob("simulator/t2i_simulator/profiles/*.json")
)


def test_text_of_a_profile_is_what_it_was() -> None:
    assert hashlib.blake2b(render_profile(FULL).encode(), digest_size=8).hexdigest() == "4aee839004a5de20"
    assert parse_profile(render_profile(FULL)) == FULL


def test_digest_of_losses_is_what_it_was() -> None:
    """Corrections name it: with another one they would be of another profile, and be dropped."""
    assert FULL.losses_digest == "191370fc17b0d922"
    assert parse_profile(render_profile(FULL)).losses_digest == FULL.losses_digest


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_profile_is_written_as_it_was_read(path: Path) -> None:
    assert render_profile(parse_profile(path.read_text())) == path.read_text()
