"""Measured prompts of the embedded model, drawn by the bare loop in large batches.

The same captions, seeds and scores as `t2ictl profile` would give; workers and their batching are left out, because
only quality is looked at.
"""

from collections.abc import Sequence
from pathlib import Path

from bench.kit.caption_runs import CaptionRuns
from bench.kit.places import example_spec
from t2i_policy.level import Level, build_ladder
from t2i_policy.profile_document import parse_profile
from t2i_profiler.images import Sample, pixel_distance, spread
from t2i_profiler.judges.scenes import SceneJudge
from t2i_profiler.sample_file import Facts, Measurement, PromptScores, read_samples, write_samples
from t2i_profiler.samples import scene_samples
from t2i_scenes import model_path
from t2i_scenes.measuring import AskedCaption

SEED_STRIDE = 7919
SCHEDULES = (8, 6, 4)  # beside the pool's skips


def load_or_draw(folder: Path, num_kept: int, num_asked: int, num_seeds: int, seed: int) -> Measurement:
    """The samples file of this draw if it is there, else a new one."""
    path = folder / f"{num_kept}-{num_asked}-{num_seeds}-{seed}.samples.jsonl"
    if not path.exists():
        write_samples(draw(num_kept, num_asked, num_seeds, seed), path)
    return read_samples(path)


def draw(num_kept: int, num_asked: int, num_seeds: int, seed: int) -> Measurement:
    """Score asked captions at skips of the example pool and short schedules, once a seed."""
    spec, samples = example_spec("pool-scenes"), scene_samples(num_kept, num_asked, seed)
    plain = [level for level in spec.ladder.levels if not level.marks]  # the bare loop runs whole steps
    ladder = build_ladder(spec.base_steps, [*plain, *(Level(0, steps) for steps in SCHEDULES)])
    runs = CaptionRuns.of(ladder.base_steps, _captions(samples.kept), _captions(samples.asked))
    turns = [{one: runs.draw(one, turn * SEED_STRIDE) for one in ladder.levels} for turn in range(num_seeds)]
    prompts = []
    for at, (asked, near) in enumerate(zip(runs.asked, runs.nearest, strict=True)):
        scores = {level: tuple(turn[level].scores[at].quality for turn in turns) for level in ladder.levels}
        spreads = {level: spread([turn[level].images[at] for turn in turns], pixel_distance) for level in ladder.levels}
        prompts.append(
            PromptScores(
                prompt=asked.text,
                nearest=runs.kept[near].text,
                similarity=float(runs.similarities[at]),
                exact=scores.pop(ladder.exact),
                by_level=scores,
                exact_spread=spreads.pop(ladder.exact),
                spreads=spreads if num_seeds > 1 else {},
            )
        )
    shipped = parse_profile((model_path() / "profile.json").read_text())
    facts = Facts(
        shipped.model_digest,
        shipped.device,
        ladder.base_steps,
        shipped.step_s,
        shipped.fixed_s,
        SceneJudge().card.record,
    )
    return Measurement(facts, tuple(prompts))


def _captions(samples: Sequence[Sample]) -> list[AskedCaption]:
    return [AskedCaption(one.scene, one.prompt, one.seed) for one in samples if one.scene is not None]
