"""Captions drawn in full, resumed from similar ones, and plainly with fewer steps; their scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.kit.caption_runs import CaptionRuns, Floats
from t2i_policy.level import Level
from t2i_profiler.images import pixel_distance
from t2i_scenes import Scene, caption, edit_scene, sample_scene, score_image
from t2i_scenes.measuring import AskedCaption, MeasuredScores
from t2i_scenes.sampling import ScenesModel

BANDS = ((0.98, 1.01), (0.95, 0.98), (0.9, 0.95), (0.8, 0.9), (0.7, 0.8), (0.5, 0.7), (-1.0, 0.5))
#: What an asked caption is to a kept one -> edits of it (None: a scene of its own), and the share of such captions.
KINDS: dict[str, int | None] = {"paraphrase": 0, "one edit": 1, "two edits": 2, "fresh": None}
SHARES = (0.3, 0.3, 0.2, 0.2)
FRACTIONS = (0.1, 0.25, 0.4, 0.5, 0.65, 0.75, 0.9)
Mask = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True, slots=True)
class DrawnCaptions:
    """Per asked caption: similarity, kind, scores by way of drawing, and the spread of two seeds by level."""

    steps: int
    similarities: Floats
    kinds: list[str]
    full: MeasuredScores
    resumed: dict[int, MeasuredScores]
    plain: dict[int, MeasuredScores]
    as_is: Floats
    spreads: dict[Level, Floats]

    @property
    def everybody(self) -> Mask:
        return np.ones(len(self.kinds), bool)

    @property
    def bands(self) -> dict[str, Mask]:
        """Bands of similarity that hold captions, and all."""
        found: dict[str, Mask] = {}
        for low, high in BANDS:
            inside = (self.similarities >= low) & (self.similarities < high)
            if inside.any():
                found[f"≥ {low:.2f}" if low > -1 else f"< {high:.2f}"] = inside
        return {**found, "all": self.everybody}

    def lead(self, skip: int, inside: Mask) -> int:
        """1 if resuming beats plain sampling of the same cost by more than a standard error, -1 if it loses, else 0."""
        difference = values(self.resumed[skip], inside) - values(self.plain[skip], inside)
        error = difference.std(ddof=1) / np.sqrt(len(difference)) if len(difference) > 1 else np.inf
        return int(difference.mean() > error) - int(difference.mean() < -error)


def values(measured: MeasuredScores, inside: Mask, name: str = "quality") -> Floats:
    """A field of the scores of some captions."""
    chosen: Floats = np.array([getattr(score, name) for score in measured.scores])[inside]
    return chosen


def ask(kept: Sequence[AskedCaption], count: int, rng: np.random.Generator) -> dict[AskedCaption, str]:
    """Captions that are not among the kept ones, and what they are to them."""
    known = {one.text for one in kept}
    asked: dict[AskedCaption, str] = {}
    while len(asked) < count:
        kind = str(rng.choice(list(KINDS), p=SHARES))
        edits = KINDS[kind]
        near: Scene = kept[int(rng.integers(len(kept)))].scene
        scene = sample_scene(rng) if edits is None else edit_scene(near, rng, edits)
        text = caption(scene, rng)
        if text not in known:
            known.add(text)
            asked[AskedCaption(scene, text, int(rng.integers(1 << 31)))] = kind
    return asked


def draw_all(num_kept: int, num_asked: int, seed: int) -> DrawnCaptions:
    """Draw everything, each with its own seed and, for the spread, with the next one."""
    steps = ScenesModel.load().constants.default_num_inference_steps
    skips = sorted({round(fraction * steps) for fraction in FRACTIONS} - {0, steps})
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng) for _ in range(num_kept)]
    kept = [AskedCaption(scene, caption(scene, rng), int(rng.integers(1 << 31))) for scene in scenes]
    kinds = ask(kept, num_asked, rng)
    runs = CaptionRuns.of(steps, kept, list(kinds))
    spreads: dict[Level, Floats] = {}

    def twice(level: Level) -> MeasuredScores:
        """The second one only tells how far the images are apart."""
        first, second = runs.draw(level), runs.draw(level, seed_shift=1)
        pairs = zip(first.images, second.images, strict=True)
        spreads[level] = np.array([pixel_distance(one, other) for one, other in pairs])
        return first

    full = twice(Level(0, steps))
    resumed, plain = {}, {}
    for skip in skips:
        resumed[skip], plain[skip] = twice(Level(skip, steps)), twice(Level(0, steps - skip))
    sources = [runs.source.images[near] for near in runs.nearest]
    as_is = [score_image(image, one.scene).quality for image, one in zip(sources, runs.asked, strict=True)]
    return DrawnCaptions(steps, runs.similarities, list(kinds.values()), full, resumed, plain, np.array(as_is), spreads)
