"""The distilled model: how it is made, and that it draws what it is asked for in few steps."""

from dataclasses import replace
from pathlib import Path

import torch

from t2i_policy.profile_document import parse_profile
from t2i_scenes.card import ask
from t2i_scenes.distil import DistilHyperparameters, all_pairs, distil
from t2i_scenes.export import export_student
from t2i_scenes.measuring import MeasureSettings, measure
from t2i_scenes.model_folder import distilled_path, model_path
from t2i_scenes.sampling import Resume, ScenesModel
from t2i_worker.digests import model_digest

TINY = DistilHyperparameters(pairs=4, drawn_at_once=2, steps=2, batch=2, warmup_steps=1)


def weights(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in module.parameters()])


def test_interrupted_distillation_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Pairs and steps have random streams of their own, so a stop changes nothing."""
    at_once, in_two = tmp_path / "at-once", tmp_path / "in-two"
    at_once.mkdir()
    in_two.mkdir()
    whole = distil(TINY, at_once)
    (in_two / "pairs-0.pt").write_bytes((at_once / "pairs-0.pt").read_bytes())
    again = distil(TINY, in_two)
    assert torch.equal(weights(whole), weights(again))
    assert not torch.equal(weights(whole), weights(ScenesModel.load().unet))


def test_checkpoint_holds_all_that_goes_on(tmp_path: Path) -> None:
    """A run that has ended is not trained any further."""
    first = weights(distil(TINY, tmp_path))
    assert torch.equal(first, weights(distil(TINY, tmp_path)))


def test_pairs_are_what_the_teacher_draws(tmp_path: Path) -> None:
    """Noise and image of a pair belong together: the student learns the line between them."""
    teacher = ScenesModel.load()
    pairs = all_pairs(teacher, replace(TINY, pairs=2), tmp_path)
    last = teacher.constants.default_num_inference_steps
    resume = Resume(0, pairs.noise)
    drawn = teacher.draw(pairs.captions, [0, 0], resume=resume, keep_before=[last]).latents[last]
    assert torch.equal(drawn, pairs.images)


def test_export_names_no_folder_of_the_machine_that_made_it(tmp_path: Path) -> None:
    """It would be in the model's digest, which is equal on every machine."""
    export_student(ScenesModel.load().unet, tmp_path / "model")
    assert "_name_or_path" not in (tmp_path / "model" / "unet" / "config.json").read_text()
    assert ScenesModel.load(tmp_path / "model").constants.default_guidance_scale == 1.0


def test_shipped_profile_is_of_the_shipped_weights() -> None:
    told = parse_profile((distilled_path() / "profile.json").read_text())
    assert told.model_digest == model_digest(distilled_path())


def test_profile_of_the_embedded_model_has_a_section_of_the_shipped_student() -> None:
    """So that a pool of both is served as it is. Fewer steps lose more, and all of them lose something."""
    told = parse_profile((model_path() / "profile.json").read_text()).section("distilled")
    assert told.model_digest == model_digest(distilled_path())
    assert told.base_steps == ScenesModel.load(distilled_path()).constants.default_num_inference_steps
    losses = [band.mean_loss for band in sorted(told.losses, key=lambda band: -band.level.num_inference_steps)]
    assert len(losses) == told.base_steps
    assert losses == sorted(losses)
    assert all(band.mean_loss - band.standard_error > 0 for band in told.losses)


def quiet(title: str, done: int, total: int) -> None:
    del title, done, total


def test_shipped_student_is_near_its_teacher_in_a_third_of_the_steps() -> None:
    """Without guidance, so in a sixth of the rows. The card tells the scores of many more captions."""
    asked = ask(24, seed=11)
    student, teacher = ScenesModel.load(distilled_path()), ScenesModel.load()
    few = student.constants.default_num_inference_steps
    assert few * 3 <= teacher.constants.default_num_inference_steps
    light = measure(student, asked, MeasureSettings(few, 1.0), "", quiet).mean("quality")
    full = measure(teacher, asked, MeasureSettings(12, 2.0), "", quiet).mean("quality")
    hasty = measure(teacher, asked, MeasureSettings(few // 2, 2.0), "", quiet).mean(
        "quality"
    )  # of as many rows, or less
    assert hasty < light
    assert light > 0.75 * full
