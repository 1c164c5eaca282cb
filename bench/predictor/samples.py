"""Measured prompts of the embedded model, drawn by the bare loop in large batches.

The same captions, seeds and scores as `t2ictl profile` would give; workers and their batching are left out, because
only quality is looked at.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench.kit.output import progress
from bench.kit.places import example_spec
from t2i_policy.level import Ladder, Level
from t2i_policy.profile import parse_profile
from t2i_profiler.judge import Pixels, Sample, SceneJudge, pixel_distance, spread
from t2i_profiler.sample_file import Facts, Measurement, PromptScores, read_samples, write_samples
from t2i_profiler.samples import scene_samples
from t2i_scenes import embedder_path, model_path
from t2i_scenes.measuring import AskedCaption, MeasuredScores, MeasureSettings, measure
from t2i_scenes.sampling import Resume, ScenesModel
from t2i_sources.embedder import Embedder

SEED_STRIDE = 7919


def load_or_draw(folder: Path, num_kept: int, num_asked: int, num_seeds: int, seed: int) -> Measurement:
    """The samples file of this draw if it is there, else a new one."""
    path = folder / f"{num_kept}-{num_asked}-{num_seeds}-{seed}.samples.jsonl"
    if not path.exists():
        write_samples(draw(num_kept, num_asked, num_seeds, seed), path)
    return read_samples(path)


def draw(num_kept: int, num_asked: int, num_seeds: int, seed: int) -> Measurement:
    """Score asked captions at every level of the example pool, once a seed."""
    model, embedder, ladder = ScenesModel.load(), Embedder(embedder_path()), example_spec("pool-scenes").ladder
    samples = scene_samples(num_kept, num_asked, seed)
    cosines = (
        np.stack([embedder.embed_now(one.prompt).vector for one in samples.asked])
        @ np.stack([embedder.embed_now(one.prompt).vector for one in samples.kept]).T
    )
    nearest = cosines.argmax(1)
    kept = _with_seed(samples.kept, 0)
    keep = MeasureSettings(ladder.base_steps, model.constants.default_guidance_scale, keep_before=ladder.steps_to_keep)
    sources = measure(model, kept, keep, "kept", progress)
    starts = {step: latents[torch.from_numpy(nearest)] for step, latents in sources.latents.items()}
    theirs = [kept[near].seed for near in nearest]
    turns = [_draw_turn(model, ladder, samples.asked, starts, theirs, turn) for turn in range(num_seeds)]
    prompts = tuple(
        _scores(
            one.prompt,
            samples.kept[nearest[at]].prompt,
            float(cosines[at].max()),
            ladder.exact,
            [_shots(turn, at) for turn in turns],
        )
        for at, one in enumerate(samples.asked)
    )
    shipped = parse_profile((model_path() / "profile.json").read_text())
    facts = Facts(
        shipped.model_digest, shipped.device, ladder.base_steps, shipped.step_s, shipped.fixed_s, SceneJudge.name
    )
    return Measurement(facts, prompts)


Shot = tuple[float, Pixels]


def _shots(turn: dict[Level, MeasuredScores], at: int) -> dict[Level, Shot]:
    """One caption's score and image at every level of one turn."""
    return {level: (drawn.scores[at].quality, drawn.images[at]) for level, drawn in turn.items()}


def _scores(prompt: str, nearest: str, similarity: float, exact: Level, turns: list[dict[Level, Shot]]) -> PromptScores:
    scores = {level: tuple(turn[level][0] for turn in turns) for level in turns[0]}
    spreads = {level: spread([turn[level][1] for turn in turns], pixel_distance) for level in turns[0]}
    several = len(turns) > 1
    return PromptScores(
        prompt=prompt,
        nearest=nearest,
        similarity=similarity,
        exact=scores.pop(exact),
        by_level=scores,
        exact_spread=spreads.pop(exact),
        spreads=spreads if several else {},
    )


def _draw_turn(
    model: ScenesModel,
    ladder: Ladder,
    samples: tuple[Sample, ...],
    starts: dict[int, Tensor],
    theirs: list[int],
    turn: int,
) -> dict[Level, MeasuredScores]:
    """Every level once, all turns from the same latents; `theirs` are the seeds that those were drawn with."""
    asked, drawn = _with_seed(samples, turn), {}
    for level in ladder.levels:
        resume, skip = None, level.skipped_steps
        if level.needs_latent:
            resume = Resume(skip, model.with_own_noise(starts[skip], skip, [one.seed for one in asked], theirs))
        settings = MeasureSettings(level.num_inference_steps, model.constants.default_guidance_scale, resume)
        title = f"turn {turn}, level {level.label(ladder.base_steps)}"
        drawn[level] = measure(model, asked, settings, title, progress)
    return drawn


def _with_seed(samples: tuple[Sample, ...], turn: int) -> list[AskedCaption]:
    return [
        AskedCaption(one.scene, one.prompt, one.seed + turn * SEED_STRIDE) for one in samples if one.scene is not None
    ]
