"""What each way loses against the exact image of the same caption and seed, and what it takes."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.kit.caption_runs import Floats
from bench.kit.output import say
from bench.levels.ways import ALL_WAYS, EXACT, PLAIN, Way, draw_final
from bench.scenes.drawn import Mask, ask
from bench.starts.compared import MeanWithError
from t2i_scenes import caption, embedder_path, sample_scene, score_image
from t2i_scenes.measuring import AskedCaption
from t2i_scenes.sampling import ScenesModel
from t2i_sources.embedder import Embedder

BATCH = 8
SAME_SCORE = 1e-4
TIMES = 60  # that a forward is repeated for its time
BANDS = {"≥ 0.95": (0.95, 1.01), "0.80 to 0.95": (0.8, 0.95), "< 0.80": (-1.0, 0.8)}
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ComparedWays:
    """Per caption, over all blocks. Quality is in points of score, 100 is perfect. `forward_s`: of one row, of two."""

    similarity: Floats
    quality: dict[str, Floats]
    distance: dict[str, float]
    forward_s: dict[int, float]
    exact_changed: int  # exact images whose score differs from that of an earlier run

    @classmethod
    def of(cls, blocks: Sequence[Document]) -> "ComparedWays":
        def joined(pick: Callable[[Document], Any]) -> Floats:
            return np.concatenate([np.asarray(pick(block), float) for block in blocks])

        names = list(ALL_WAYS)
        return cls(
            joined(lambda block: block["similarity"]),
            {name: 100 * joined(lambda block: block["quality"][name]) for name in names},  # noqa: B023
            {name: float(joined(lambda block: block["distance"][name]).mean()) for name in names},  # noqa: B023
            {rows: statistics.median(block["forward_s"][str(rows)] for block in blocks) for rows in (1, 2)},
            sum(block.get("exact_changed", 0) for block in blocks),
        )

    @property
    def everybody(self) -> Mask:
        return np.ones(len(self.similarity), bool)

    @property
    def bands(self) -> dict[str, Mask]:
        return {name: (self.similarity >= low) & (self.similarity < high) for name, (low, high) in BANDS.items()}

    def alone_s(self, name: str) -> float:
        """Of the forwards of one image alone."""
        way = ALL_WAYS[name]
        return sum(self.forward_s[1 + way.guides(step)] for step in way.run_steps)

    def loss(self, name: str, inside: Mask) -> MeanWithError:
        return MeanWithError.of((self.quality[EXACT] - self.quality[name])[inside])

    def plain_rival(self, name: str) -> str:
        """The shortest plain schedule that runs as many rows of the denoiser or more."""
        able = [one for one, way in {EXACT: ALL_WAYS[EXACT], **PLAIN}.items() if way.rows >= ALL_WAYS[name].rows]
        return min(able, key=lambda one: ALL_WAYS[one].rows)

    def between(self, one: str, other: str) -> MeanWithError:
        """Points by which one way is better than another, in pairs."""
        return MeanWithError.of(self.quality[one] - self.quality[other])

    def lead(self, name: str, inside: Mask) -> MeanWithError:
        """Points better than the plain rival, in pairs."""
        return MeanWithError.of((self.quality[name] - self.quality[self.plain_rival(name)])[inside])


def is_whole(block: Document) -> bool:
    """Whether every way is drawn."""
    return {*ALL_WAYS} <= {*block.get("quality", {})}


def draw_block(num_kept: int, num_asked: int, seed: int, save: Callable[[Document], None], known: Document) -> Document:
    """Captions of their own; blocks of other seeds share none. Ways of `known`, a block of the same captions, stay.

    `save` gets the block after each way.
    """
    model, embedder, rng = ScenesModel.load(), Embedder(embedder_path()), np.random.default_rng([seed, 23])
    scenes = (sample_scene(rng) for _ in range(num_kept))
    kept = [AskedCaption(scene, caption(scene, rng), int(rng.integers(1 << 31))) for scene in scenes]
    asked = list(ask(kept, num_asked, rng))
    vectors = [np.stack([embedder.embed_now(one.text).vector for one in captions]) for captions in (asked, kept)]
    cosines = vectors[0] @ vectors[1].T
    finals = _draw(model, kept, ALL_WAYS[EXACT])[torch.from_numpy(cosines.argmax(1))]
    document: Document = {"seed": seed, "similarity": cosines.max(1).tolist(), "quality": {}, "distance": {}, **known}
    document.setdefault("forward_s", _time_forwards(model))
    exact: Any = None
    for name, way in ALL_WAYS.items():
        if name in document["quality"] and name != EXACT:
            continue
        start = model.noised(finals, way.skipped, [one.seed for one in asked]) if way.skipped else None
        images = model.to_images(_draw(model, asked, way, start))
        exact = images if exact is None else exact
        scores = [score_image(*pair).quality for pair in zip(images, _scenes(asked), strict=True)]
        if name in document["quality"]:
            again = zip(scores, document["quality"][name], strict=True)
            document["exact_changed"] = sum(abs(one - other) > SAME_SCORE for one, other in again)
        document["quality"][name] = scores
        document["distance"][name] = np.abs(images.astype(float) - exact).mean((1, 2, 3)).tolist()
        save(document)
        say(f"block {seed}: {name} is drawn")
    return document


def _draw(model: ScenesModel, asked: Sequence[AskedCaption], way: Way, start: Tensor | None = None) -> Tensor:
    parts = [slice(at, at + BATCH) for at in range(0, len(asked), BATCH)]
    return torch.cat([draw_final(model, asked[at], way, None if start is None else start[at]) for at in parts])


def _scenes(asked: Sequence[AskedCaption]) -> list[Any]:
    return [one.scene for one in asked]


def _time_forwards(model: ScenesModel) -> dict[str, float]:
    """CPU seconds of one row and of two, in turn: what else the machine does then slows both."""
    took_s: dict[int, list[float]] = {1: [], 2: []}
    inputs = {rows: (model.noise(range(rows)), model.encode(["a red circle"] * rows)) for rows in took_s}
    with torch.inference_mode():
        for _ in range(TIMES):
            for rows, (latents, states) in inputs.items():
                began_s = time.process_time()
                model.unet(latents, torch.full((rows,), 500.0), states.hidden, class_labels=states.cls)
                took_s[rows].append(time.process_time() - began_s)
    return {str(rows): statistics.median(times) for rows, times in took_s.items()}
