"""Measured prompts of the embedded model, drawn by the bare loop in large batches.

The same captions, seeds and scores as `t2ictl profile` would give; workers and their batching are left out, because
only quality is looked at.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.kit.output import progress
from bench.kit.places import example_spec
from t2i_policy.level import Ladder, Level
from t2i_policy.profile import parse_profile
from t2i_profiler.judge import Sample, SceneJudge, pixel_distance, spread
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
    model, ladder = ScenesModel.load(), example_spec("pool-scenes").ladder
    samples = scene_samples(num_kept, num_asked, seed)
    cosines = _embed(samples.asked) @ _embed(samples.kept).T
    nearest = cosines.argmax(1)
    kept = _with_seed(samples.kept, 0)
    keep = MeasureSettings(ladder.base_steps, model.constants.default_guidance_scale, keep_before=ladder.steps_to_keep)
    sources = measure(model, kept, keep, "kept", progress)
    starts = {step: latents[torch.from_numpy(nearest)] for step, latents in sources.latents.items()}
    theirs = [kept[near].seed for near in nearest]
    turns = [_draw_turn(model, ladder, samples.asked, starts, theirs, turn) for turn in range(num_seeds)]
    prompts = []
    for at, (asked, near) in enumerate(zip(samples.asked, nearest, strict=True)):
        scores = {level: tuple(turn[level].scores[at].quality for turn in turns) for level in ladder.levels}
        spreads = {level: spread([turn[level].images[at] for turn in turns], pixel_distance) for level in ladder.levels}
        prompts.append(
            PromptScores(
                prompt=asked.prompt,
                nearest=samples.kept[near].prompt,
                similarity=float(cosines[at].max()),
                exact=scores.pop(ladder.exact),
                by_level=scores,
                exact_spread=spreads.pop(ladder.exact),
                spreads=spreads if num_seeds > 1 else {},
            )
        )
    shipped = parse_profile((model_path() / "profile.json").read_text())
    facts = Facts(
        shipped.model_digest, shipped.device, ladder.base_steps, shipped.step_s, shipped.fixed_s, SceneJudge.name
    )
    return Measurement(facts, tuple(prompts))


def _embed(samples: Sequence[Sample]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Unit vectors [n, d]."""
    embedder = Embedder(embedder_path())
    return np.stack([embedder.embed_now(one.prompt).vector for one in samples])


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
