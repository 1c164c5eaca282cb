"""Captions of the embedded model at any level, resumed from the nearest of others' final latents, by the bare loop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bench.kit.output import progress
from t2i_policy.level import Level
from t2i_scenes import embedder_path
from t2i_scenes.measuring import AskedCaption, MeasuredScores, MeasureSettings, measure
from t2i_scenes.sampling import Resume, ScenesModel
from t2i_sources.embedder import Embedder

Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class CaptionRuns:
    """`nearest[i]` is the place of the kept caption that asked caption i starts from, by the shipped embedder."""

    model: ScenesModel
    base_steps: int
    kept: Sequence[AskedCaption]
    asked: Sequence[AskedCaption]
    nearest: np.ndarray[Any, np.dtype[np.intp]]
    similarities: Floats
    source: MeasuredScores

    @classmethod
    def of(
        cls,
        base_steps: int,
        kept: Sequence[AskedCaption],
        asked: Sequence[AskedCaption],
    ) -> "CaptionRuns":
        """Draw the kept captions, and keep their final latents."""
        model, embedder = ScenesModel.load(), Embedder(embedder_path())
        vectors = [np.stack([embedder.embed_now(one.text).vector for one in captions]) for captions in (asked, kept)]
        cosines = vectors[0] @ vectors[1].T
        settings = MeasureSettings(base_steps, model.constants.default_guidance_scale, keep_before=[base_steps])
        source = measure(model, kept, settings, "kept captions", progress)
        return cls(model, base_steps, kept, asked, cosines.argmax(1), cosines.max(1), source)

    def draw(self, level: Level, seed_shift: int = 0) -> MeasuredScores:
        """Every asked caption at a level, with its seed moved on; a resumed run has the noise of its own seed."""
        asked = [replace(one, seed=one.seed + seed_shift) for one in self.asked]
        resume, skip = None, level.skipped_steps
        if level.needs_latent:
            finals = self.source.latents[self.base_steps][torch.from_numpy(self.nearest)]
            resume = Resume(skip, self.model.noised(finals, skip, [one.seed for one in asked]))
        settings = MeasureSettings(level.num_inference_steps, self.model.constants.default_guidance_scale, resume)
        title = f"level {level.label(self.base_steps)}, seeds + {seed_shift}"
        return measure(self.model, asked, settings, title, progress)
