"""The section of the distilled model in the shipped profile of the embedded one, into a copy of that profile.

    python -m bench.scenes.other_model --scores scores.jsonl --out profile.json

Captions that training never saw are drawn in full by the embedded model, and at every schedule by the distilled one,
with the bare diffusers loop and the same seeds. The exact scorer judges each against its caption's scene. Loss is
paired by caption, as a share of the mean of the exact images. Step times are what a worker's warm-up says of both
models in turn, on the same cores: the shipped profile's own, times their ratio. So a busy machine makes none look slow.
"""

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from t2i_policy.level import Level
from t2i_policy.measured_with import MeasuredWith
from t2i_policy.model_section import ModelSection
from t2i_policy.profile import LevelProfile
from t2i_policy.profile_document import parse_profile, render_profile
from t2i_profiler.bands import Scored, band_losses
from t2i_scenes.card import ask, progress
from t2i_scenes.measuring import BATCH, AskedCaption, MeasureSettings, measure
from t2i_scenes.model_folder import distilled_path, model_path
from t2i_scenes.sampling import ScenesModel
from t2i_worker.digests import model_digest
from t2i_worker.engine.batching import BATCH_SIZES, choose_batch_cap
from t2i_worker.engine.warm_up import warm_up
from t2i_worker.pipelines import load_pipeline

NAME = "distilled"
ROUNDS = 12
SIDE = 48
UNGUIDED = 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1500, help="captions at most")
    parser.add_argument("--limit-s", type=float, default=480.0, help="begin no further captions after so many seconds")
    parser.add_argument("--seed", type=int, default=83)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scores", type=Path, required=True, help="all scores; interrupted, it goes on from there")
    parser.add_argument("--out", type=Path, required=True, help="the profile, with the section")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began_s = time.monotonic()
    profile = parse_profile((model_path() / "profile.json").read_text())
    scored = score_all(profile, options, began_s + options.limit_s)
    levels = sorted(scored[0].by_level, key=lambda level: -level.num_inference_steps)
    steps = levels[0].num_inference_steps
    step_s = measure_steps(profile)
    losses, digest = band_losses(scored, levels), model_digest(distilled_path())
    drawn = MeasuredWith(guidance_scale=UNGUIDED)  # the shipped profile says no precision, which suits any
    section = ModelSection(NAME, steps, step_s, profile.fixed_s, losses, digest, drawn)
    options.out.write_text(render_profile(replace(profile, models=(section,))))
    print(f"steps of {', '.join(f'{1e3 * one:.2f} ms' for one in section.step_s)}")
    for loss in section.losses:
        print(f"{loss.level.label(profile.base_steps)}: {loss.sentence()}")
    print(f"after {time.monotonic() - began_s:.0f} s: {options.out}")


def score_all(profile: LevelProfile, options: argparse.Namespace, until_s: float) -> list[Scored]:
    """Each caption's scores: exact, and by the distilled model at each of its schedules. Until so late by the clock."""
    teacher, student = ScenesModel.load(), ScenesModel.load(distilled_path())
    exact_settings = MeasureSettings(profile.base_steps, teacher.constants.default_guidance_scale)
    asked = ask(options.count, options.seed)
    with options.scores.open("a+") as journal:
        journal.seek(0)
        rows = [json.loads(line) for line in journal]
        while len(rows) < len(asked) and time.monotonic() < until_s:
            part = asked[len(rows) : len(rows) + BATCH]
            exact = _scores(teacher, part, exact_settings)
            light = [_scores(student, part, MeasureSettings(steps, UNGUIDED)) for steps in _schedules(student)]
            new = [[one, *others] for one, *others in zip(exact, *light, strict=True)]
            journal.writelines(f"{json.dumps(row)}\n" for row in new)
            journal.flush()
            rows += new
            progress("captions", len(rows), len(asked))
    levels = [Level(0, steps, model=NAME) for steps in _schedules(student)]
    return [_scored(row[0], dict(zip(levels, row[1:], strict=True))) for row in rows]


def _schedules(student: ScenesModel) -> range:
    """Steps of the distilled model's schedules, the full one first."""
    return range(student.constants.default_num_inference_steps, 0, -1)


def _scores(model: ScenesModel, asked: list[AskedCaption], settings: MeasureSettings) -> list[float]:
    return [score.quality for score in measure(model, asked, settings, "", lambda *_: None).scores]


def _scored(exact: float, by_level: Mapping[Level, float]) -> Scored:
    wins = {level: (score > exact) + (score == exact) / 2 for level, score in by_level.items()}
    return Scored(0.0, exact, by_level, wins=wins)


def measure_steps(profile: LevelProfile) -> tuple[float, ...]:
    """Seconds of a step of the distilled model by batch size, on the machine of the profile."""
    teacher, student = (load_pipeline(one, "fp32", SIDE, SIDE, "cpu") for one in (model_path(), distilled_path()))
    of_teacher, of_student = [], []
    for _ in range(ROUNDS):
        of_teacher.append(warm_up(teacher, 2.0, 1, _say_nothing).step_s[0])
        of_student.append(warm_up(student, UNGUIDED, 4, _say_nothing).step_s)
    # Others on the machine only make steps longer, and batches look as if they did not pay.
    quickest = [min(row[at] for row in of_student if len(row) > at) for at in range(max(map(len, of_student)))]
    cap = choose_batch_cap({at + 1: step_s for at, step_s in enumerate(quickest) if at + 1 in BATCH_SIZES})
    return tuple(profile.step_s[0] * step_s / min(of_teacher) for step_s in quickest[:cap])


def _say_nothing(_: str) -> None:
    pass


if __name__ == "__main__":
    main()
