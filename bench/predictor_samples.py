"""Measured prompts of the embedded model for `bench/predictor.py`: drawn by the bare loop in large batches.

The same captions, seeds and scores as `t2ictl profile` would give; workers and their batching are left out, because
only quality is looked at.
"""

from pathlib import Path

import numpy as np
import torch

from t2i_gateway.embedding import Embedder
from t2i_policy.levels import Ladder, Level
from t2i_policy.profile import parse_profile
from t2i_scenes import embedder_path, model_path
from t2i_scenes.measuring import Asked, Measured, Settings, measure
from t2i_scenes.sampling import ScenesModel
from t2ictl.judging import Sample, SceneJudge
from t2ictl.local_pool import read_pool
from t2ictl.sample_file import Facts, Measurement, PromptScores, read_samples, write_samples
from t2ictl.samples import scene_samples

POOL = Path(__file__).parent.parent / "examples" / "pool-scenes.yaml"
SEED_STRIDE = 7919


def progress(title: str, done: int, total: int) -> None:
    """One line that moves."""
    print(f"\r{title:40} {done}/{total}   ", end="\n" if done == total else "", flush=True)


def load_or_draw(folder: Path, num_kept: int, num_asked: int, num_seeds: int, seed: int) -> Measurement:
    """The samples file of this draw if it is there, else a new one."""
    path = folder / f"{num_kept}-{num_asked}-{num_seeds}-{seed}.samples.jsonl"
    if not path.exists():
        write_samples(draw(num_kept, num_asked, num_seeds, seed), path)
    return read_samples(path)


def draw(num_kept: int, num_asked: int, num_seeds: int, seed: int) -> Measurement:
    """Score asked captions at every level of the example pool, once a seed."""
    model, embedder, ladder = ScenesModel.load(), Embedder(embedder_path()), read_pool(POOL).spec.ladder
    samples = scene_samples(num_kept, num_asked, seed)
    cosines = (
        np.stack([embedder.embed_now(one.prompt).vector for one in samples.asked])
        @ np.stack([embedder.embed_now(one.prompt).vector for one in samples.kept]).T
    )
    nearest = cosines.argmax(1)
    turns = [_draw_turn(model, ladder, samples.kept, samples.asked, nearest, turn) for turn in range(num_seeds)]
    prompts = tuple(
        PromptScores(
            one.prompt,
            samples.kept[nearest[at]].prompt,
            float(cosines[at].max()),
            tuple(turn[ladder.exact].scores[at].quality for turn in turns),
            {
                level: tuple(turn[level].scores[at].quality for turn in turns)
                for level in ladder.levels
                if level != ladder.exact
            },
        )
        for at, one in enumerate(samples.asked)
    )
    shipped = parse_profile((model_path() / "profile.json").read_text())
    facts = Facts(
        shipped.model_digest, shipped.device, ladder.base_steps, shipped.step_s, shipped.fixed_s, SceneJudge.name
    )
    return Measurement(facts, prompts)


def _draw_turn(
    model: ScenesModel,
    ladder: Ladder,
    kept: tuple[Sample, ...],
    asked: tuple[Sample, ...],
    nearest: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    turn: int,
) -> dict[Level, Measured]:
    guidance = model.constants.default_guidance_scale
    sources = measure(
        model,
        _with_seed(kept, turn),
        Settings(ladder.base_steps, guidance, keep_before=ladder.steps_to_keep),
        f"turn {turn}, kept",
        progress,
    )
    drawn = {}
    for level in ladder.levels:
        resume = None
        if level.needs_latent:
            resume = (level.skipped_steps, sources.latents[level.skipped_steps][torch.from_numpy(nearest)])
        settings = Settings(level.num_inference_steps, guidance, resume)
        title = f"turn {turn}, level {level.label(ladder.base_steps)}"
        drawn[level] = measure(model, _with_seed(asked, turn), settings, title, progress)
    return drawn


def _with_seed(samples: tuple[Sample, ...], turn: int) -> list[Asked]:
    return [Asked(one.scene, one.prompt, one.seed + turn * SEED_STRIDE) for one in samples if one.scene is not None]
