"""Another model's section of a profile: its images against the reference's exact ones, of the same prompts."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from t2i_policy.frontier import choose_ladder
from t2i_policy.judge_record import JudgeRecord
from t2i_policy.level import Level
from t2i_policy.measured_with import MeasuredWith
from t2i_policy.profile_document import parse_profile
from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.other_models import section_of
from t2i_profiler.sample_file import Facts, Measurement, PromptScores, read_samples, write_samples
from t2ictl.commands.profile import refit_profile
from t2ictl.errors import InputInvalid

PICK = JudgeRecord("pickscore", "hf://a/b", "11")
SKIP, SHORT = Level(6, 12), Level(0, 8)
DRAWN = MeasuredWith(1.0, "bf16", ("pixel",))
TURBO, HALF = Level(0, 4, model="turbo"), Level(0, 2, model="turbo")


def reference(count: int = 20) -> Measurement:
    """Exact images score 0.8, each in two seeds."""
    scores = {SKIP: (0.7, 0.7), SHORT: (0.78, 0.78)}
    prompts = tuple(PromptScores(f"prompt {n}", f"kept {n % 9}", 0.9, (0.8, 0.8), scores) for n in range(count))
    return Measurement(Facts("sdxl", "A10G", 12, (0.1, 0.15), 0.02, PICK), prompts)


def turbo(count: int = 20, first: int = 0) -> Measurement:
    """Another model, drawn in one seed: its own exact images score 0.76 on average, at half of its steps 0.6."""
    own = {Level(0, 2): (0.6,), Level(2, 4): (0.9,)}
    prompts = tuple(
        PromptScores(f"prompt {n}", f"kept {n % 9}", 0.5, (0.72 if n % 2 else 0.8,), own)
        for n in range(first, first + count)
    )
    return Measurement(Facts("turbo-digest", "A10G", 4, (0.05, 0.08), 0.3, PICK, measured_with=DRAWN), prompts)


def test_losses_are_against_the_references_exact_images() -> None:
    """Its full schedule too, which loses nothing against itself. Levels that need a latent are left out."""
    section = section_of("turbo", reference(), turbo())
    found = {band.level: band for band in section.losses}
    assert found.keys() == {TURBO, HALF}
    assert found[TURBO].mean_loss == pytest.approx(0.05)
    assert found[HALF].mean_loss == pytest.approx(0.25)
    assert found[TURBO].standard_error == pytest.approx(0.05 / 19**0.5, rel=0.01)
    assert found[TURBO].win_rate == pytest.approx(0.25), "a tie is half a win, in every other prompt"
    assert (section.base_steps, section.step_s, section.fixed_s) == (4, (0.05, 0.08), 0.3)
    assert (section.model_digest, section.measured_with) == ("turbo-digest", DRAWN)


def test_prompts_of_one_file_alone_do_not_count() -> None:
    section = section_of("turbo", reference(20), turbo(30, first=2))
    assert {band.num_samples for band in section.losses} == {18}


def test_samples_say_what_guidance_they_were_drawn_with(tmp_path: Path) -> None:
    """Those of before do not."""
    for measured in (turbo(), reference()):
        write_samples(measured, tmp_path / "samples.jsonl")
        assert read_samples(tmp_path / "samples.jsonl").facts == measured.facts


MISTAKES: dict[str, tuple[Callable[[Measurement], Measurement], str]] = {
    "another judge": (
        lambda one: replace(one, facts=replace(one.facts, judge=replace(PICK, digest="22"))),
        "by different judges",
    ),
    "another device": (lambda one: replace(one, facts=replace(one.facts, device="H100")), "measured on 'H100'"),
    "other prompts": (lambda one: turbo(first=10), "10 prompts are in both samples files"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_compared_is_refused(mistake: str) -> None:
    change, told = MISTAKES[mistake]
    with pytest.raises(SamplesInvalid, match=told):
        section_of("turbo", reference(), change(turbo()))


def test_a_judge_that_compares_with_exact_says_nothing_between_models() -> None:
    compares = replace(PICK, compares=True)
    one, other = (replace(file, facts=replace(file.facts, judge=compares)) for file in (reference(), turbo()))
    with pytest.raises(SamplesInvalid, match="between two models"):
        section_of("turbo", one, other)


async def test_samples_of_two_models_become_a_profile_that_pools_of_both_are_planned_by(tmp_path: Path) -> None:
    """From files to the ladder, and the terminal tells both."""
    write_samples(reference(), tmp_path / "sdxl.jsonl")
    write_samples(turbo(), tmp_path / "turbo.jsonl")
    console, out = Console(file=io.StringIO(), width=160, record=True), tmp_path / "both.json"
    beside = [f"turbo={tmp_path / 'turbo.jsonl'}"]
    await refit_profile(console, [tmp_path / "sdxl.jsonl"], out, False, beside)
    profile = parse_profile(out.read_text())
    assert choose_ladder(12, (), profile, models=("turbo",)).ladder.full_schedule("turbo") == TURBO
    assert "turbo:0/4" in console.export_text()
    with pytest.raises(InputInvalid, match="expected NAME=SAMPLES"):
        await refit_profile(console, [tmp_path / "sdxl.jsonl"], out, False, ["Turbo"])
