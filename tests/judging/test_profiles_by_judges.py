"""What several judges make of a profile: recorded, reported side by side, never mixed."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from t2i_api.pool import PoolSpec
from t2i_policy.judge_record import JudgeRecord
from t2i_policy.level import Level
from t2i_policy.profile import VariantLosses
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.journal import Journal
from t2i_profiler.precision import joined_profile
from t2i_profiler.sample_file import Facts, Measurement, PromptScores, read_samples, write_samples
from t2i_simulator.errors import ProfileMissing
from t2i_simulator.profiles import build_groups
from t2ictl.profile_report import write_report
from t2ictl.profiling import variants_of

SKIP, SHORT = Level(6, 12), Level(0, 4)
PICK = JudgeRecord("pickscore", "hf://a/b", "11")
NEAR = JudgeRecord("lpips", "hf://c/d", "22", compares=True)
MODEL = {"source": "file:///m", "numInferenceSteps": 12, "width": 64, "height": 64}


def measurement(judge: JudgeRecord, loss: float = 0.1) -> Measurement:
    """Twenty prompts of two seeds; the first seed's image loses, the second's is better than exact."""
    facts = Facts("model", "device", 12, (0.1, 0.15), 0.02, judge)
    prompts = []
    for at in range(20):
        scores = {SKIP: (round(0.8 - loss - at / 1000, 6), 0.81), SHORT: (0.7, 0.7)}
        prompts.append(PromptScores(f"secret prompt {at}", f"kept {at % 9}", 0.9, (0.8, 0.8), scores))
    return Measurement(facts, tuple(prompts))


def test_losses_and_wins_are_told_by_each_judge() -> None:
    """The first decides; a judge that compares has no wins, for exact always wins."""
    profile = joined_profile([measurement(PICK), measurement(NEAR, 0.3)])
    first, second = profile.judged
    assert (first.judge.kind, second.judge.kind) == ("pickscore", "lpips")
    assert first.judge.num_images == second.judge.num_images == 20 * 2 * 3
    assert first.losses == profile.losses
    by_level = {band.level: band for band in first.losses}
    assert by_level[SKIP].mean_loss == pytest.approx((0.1 + 0.0095 - 0.01) / 2 / 0.8)
    assert (by_level[SKIP].win_rate, by_level[SHORT].win_rate) == (0.5, 0.0)
    assert first.judge.standard_error == pytest.approx(by_level[SKIP].standard_error)
    assert all(band.win_rate is None for band in second.losses)
    assert profile.expected_loss(SHORT, None) == pytest.approx(0.125)


def test_it_survives_its_file_and_older_ones_mean_what_they_meant(tmp_path: Path) -> None:
    profile = joined_profile([measurement(PICK), measurement(NEAR)])
    profile = replace(profile, variants=(VariantLosses(96, 64, "", profile.losses), VariantLosses(0, 0, "ink", ())))
    assert parse_profile(render_profile(profile)) == profile
    old = json.loads(render_profile(profile))
    for key in ("judge", "otherJudges", "variants"):
        del old[key]
    for band in old["losses"]:
        band.pop("winRate", None)
    before = parse_profile(json.dumps(old))
    assert (before.judge, before.others, before.variants) == (None, (), ())
    assert before.expected_loss(SKIP, 0.9) == profile.expected_loss(SKIP, 0.9)
    write_samples(measurement(PICK), tmp_path / "s.jsonl")
    assert read_samples(tmp_path / "s.jsonl") == measurement(PICK)


def test_scores_of_other_images_are_not_joined() -> None:
    """Not of another device, not of other prompts."""
    other = replace(measurement(NEAR), facts=replace(measurement(NEAR).facts, device="another"))
    fewer = replace(measurement(NEAR), prompts=measurement(NEAR).prompts[1:])
    for one in (other, fewer):
        with pytest.raises(SamplesInvalid, match=r"by pickscore .* by lpips .* different images"):
            joined_profile([measurement(PICK), one])


def test_groups_with_profiles_by_different_judges_are_refused(tmp_path: Path) -> None:
    """A plan would weigh losses of one scale against those of another. One of before, without a judge, may stay."""
    unknown = replace(joined_profile([measurement(PICK)]), judge=None)
    files = {"a": joined_profile([measurement(PICK)]), "b": joined_profile([measurement(NEAR)]), "c": unknown}
    for name, profile in files.items():
        (tmp_path / f"{name}.json").write_text(render_profile(profile))

    def groups(*names: str) -> int:
        parts = [{"name": one, "workers": 1, "profile": f"file://{tmp_path}/{one}.json"} for one in names]
        return len(build_groups(PoolSpec.model_validate({"model": MODEL, "workerGroups": parts}), tmp_path, None))

    assert groups("a", "c") == 2
    with pytest.raises(ProfileMissing, match=r"different judges \(pickscore \(11\) and lpips \(22\)\)"):
        groups("a", "c", "b")


def test_the_report_shows_both_judges_and_the_cases(tmp_path: Path) -> None:
    """The page holds no prompt; sheets are made where the pictures are, and left out when fitting anew."""
    journal = Journal.open(tmp_path / "p.journal", {})
    for number in range(20):
        for at in range(3):
            file = io.BytesIO()
            Image.new("RGB", (300, 200), (10 * number, 80 * at, 90)).save(file, "png")
            journal.keep_picture(f"asked-{number}-{at}", file.getvalue())
    by_judge = [measurement(PICK), measurement(NEAR)]
    profile = joined_profile(by_judge)
    written = write_report(profile, by_judge, journal, tmp_path / "p.json")
    assert {path.name for path in written} == {"p.md", "p.frontier.png", "p.cases.png", "p.2.cases.png"}
    page = (tmp_path / "p.md").read_text()
    assert "secret" not in page
    for part in ("## pickscore (11)", "## lpips (22)", "| skipping 6 of 12 steps |", "p.2.cases.png", "6.2 ± "):
        assert part in page, part
    with Image.open(tmp_path / "p.cases.png") as sheet:
        assert sheet.width > 800, "three cases in a row, each beside exact"
    again = write_report(profile, by_judge, Journal(), tmp_path / "again.json")
    assert {path.name for path in again} == {"again.md", "again.frontier.png"}
    assert "cases" not in (tmp_path / "again.md").read_text()


def test_variants_are_other_sizes_and_adapters() -> None:
    """The default size is measured anyway; of a range its ends."""
    sizes = [{"width": 64, "height": 64}, {"width": 96, "height": 64}]
    sizes.append({"width": 64, "height": 64, "maxWidth": 128, "maxHeight": 128})
    adapters = [{"name": "ink", "source": "file:///ink"}]
    model = {**MODEL, "sizes": sizes, "adapters": adapters}
    spec = PoolSpec.model_validate({"model": model, "workerGroups": [{"name": "cpu", "workers": 1}]})
    assert [one.phrase for one in variants_of(spec)] == ["96x64", "128x128", "ink"]
