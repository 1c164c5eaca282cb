"""Prompts for measuring: some whose latents are kept, others asked against them at every degree of similarity."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from t2i_profiler.errors import SamplesInvalid
from t2i_profiler.images import Sample
from t2i_scenes import Scene, caption, edit_scene, read_caption, sample_scene

#: Kinds of asked captions: edits of a kept one (0 = a paraphrase), or None for a fresh scene; with their shares.
KINDS: tuple[tuple[int | None, float], ...] = ((0, 0.35), (1, 0.25), (2, 0.15), (None, 0.25))


MIN_ASKED = 8


@dataclass(frozen=True, slots=True)
class Samples:
    """What to keep and what to ask; no asked prompt is among the kept ones."""

    kept: tuple[Sample, ...]
    asked: tuple[Sample, ...]


def scene_samples(num_kept: int, num_asked: int, seed: int) -> Samples:
    """Captions of the scenes model: paraphrases, one and two edits of kept scenes, and fresh ones."""
    rng = np.random.default_rng(seed)
    kept = [_say(sample_scene(rng), rng) for _ in range(num_kept)]
    known = {sample.prompt for sample in kept}
    asked: list[Sample] = []
    edits, shares = zip(*KINDS, strict=True)
    while len(asked) < num_asked:
        kind = edits[int(rng.choice(len(edits), p=shares))]
        near = kept[int(rng.integers(num_kept))].scene
        scene = sample_scene(rng) if kind is None or near is None else edit_scene(near, rng, kind)
        sample = _say(scene, rng)
        if sample.prompt not in known:
            known.add(sample.prompt)
            asked.append(sample)
    return Samples(tuple(kept), tuple(asked))


def only_read(samples: Samples, reads: Callable[[str], bool]) -> Samples:
    """Those prompts that the embedder reads whole: a gateway compares no others.

    Raises:
        SamplesInvalid: too few are left to measure with.
    """
    kept = tuple(sample for sample in samples.kept if reads(sample.prompt))
    asked = tuple(sample for sample in samples.asked if reads(sample.prompt))
    if not kept or len(asked) < MIN_ASKED:
        raise SamplesInvalid(
            f"the embedder reads {len(kept)} of {len(samples.kept)} cached prompts whole and {len(asked)} of "
            f"{len(samples.asked)} asked ones; at least 1 and {MIN_ASKED} needed: give one of their language"
        )
    return Samples(kept, asked)


def with_scenes(samples: Samples) -> Samples:
    """The same with the scenes that their captions describe: what the exact scorer compares images with.

    Raises:
        SamplesInvalid: some are no captions of the scenes model.
    """
    found = Samples(tuple(map(_read, samples.kept)), tuple(map(_read, samples.asked)))
    every = (*found.kept, *found.asked)
    unread = sum(sample.scene is None for sample in every)
    if unread:
        raise SamplesInvalid(
            f"--judge scenes scores captions of the scenes model only, and {unread} of {len(every)} lines of --prompts "
            "are none: name another judge, leave these lines out, or leave --prompts out for captions of its own"
        )
    return found


def _read(sample: Sample) -> Sample:
    return sample if sample.scene is not None else replace(sample, scene=read_caption(sample.prompt))


def _say(scene: Scene, rng: np.random.Generator) -> Sample:
    return Sample(caption(scene, rng), int(rng.integers(1 << 31)), scene)


def file_samples(path: Path, num_kept: int, num_asked: int, seed: int) -> Samples:
    """Distinct lines of a file, shuffled: the first are kept, the others asked.

    Raises:
        SamplesInvalid: not readable, or too few lines.
    """
    try:
        lines = list(dict.fromkeys(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()))
    except OSError as error:
        raise SamplesInvalid(f"--prompts cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SamplesInvalid("--prompts cannot be read: it is no UTF-8 text") from error
    if len(lines) < num_kept + MIN_ASKED:
        raise SamplesInvalid(
            f"--prompts has {len(lines)} different lines; --cached {num_kept} and at least {MIN_ASKED} more needed"
        )
    rng = np.random.default_rng(seed)
    chosen = [lines[index] for index in rng.permutation(len(lines))[: num_kept + num_asked]]
    samples = [Sample(line, int(rng.integers(1 << 31))) for line in chosen]
    return Samples(tuple(samples[:num_kept]), tuple(samples[num_kept:]))
