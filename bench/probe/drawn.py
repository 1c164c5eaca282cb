"""Runs that share a beginning and end differently, with what an early look at each beginning sees.

A run is looked at after its first computed steps and then ends in one of several ways. Endings of a look go on from its
state; nothing is computed twice. Drawn in batches by the model's own arithmetic: Euler, guidance, forecasts of order 1.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.kit.output import say
from bench.levels.ways import CHOSEN, Known, Outputs
from bench.probe.seen import SeenStep, look_features
from bench.scenes.drawn import ask
from t2i_scenes import caption, embedder_path, sample_scene, score_image
from t2i_scenes.measuring import AskedCaption
from t2i_scenes.sampling import EncodedCaptions, ScenesModel
from t2i_sources.embedder import Embedder

BATCH = 16
STEPS = 12
GRID = tuple(1 - step / STEPS for step in range(STEPS + 1))  # noise levels of the exact schedule
SHORT = {6: (2, 4, 8), 4: (1, 2, 3, 6)}  # steps of a short schedule -> steps after its look
SHORT_LOOK = 2  # steps before it
SKIPS = {"skip 6": (6, 2), "skip 9": (9, 1)}  # first step that runs, steps before the look
EXACT = "exact"
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunUnderWay:
    """Latents [B,C,h,w] between two steps, the last two outputs, and the computed steps so far."""

    latents: Tensor
    known: tuple[Known, ...] = ()
    seen: tuple[SeenStep, ...] = ()


@dataclass(frozen=True, slots=True)
class BatchToDraw:
    """Captions that step together. `finals` [B,C,h,w] are those of the most similar kept captions."""

    model: ScenesModel
    asked: Sequence[AskedCaption]
    finals: Tensor
    conditions: EncodedCaptions

    @classmethod
    def of(cls, model: ScenesModel, asked: Sequence[AskedCaption], finals: Tensor) -> "BatchToDraw":
        with torch.inference_mode():
            conditions = model.encode([*(one.text for one in asked), *[""] * len(asked)])
        return cls(model, asked, finals, conditions)

    @property
    def seeds(self) -> list[int]:
        return [one.seed for one in self.asked]

    @torch.inference_mode()
    def advance(
        self, run: RunUnderWay, sigmas: Sequence[float], computed: Collection[int] | None = None
    ) -> RunUnderWay:
        """Through the noise levels. `computed` are the places of steps in `sigmas` that are not forecast."""
        latents, seen = run.latents, [*run.seen]
        outputs, guidance = Outputs(1, [*run.known]), self.model.constants.default_guidance_scale
        for place, (sigma, following) in enumerate(pairwise(sigmas)):
            forecast = outputs.forecast(sigma) if len(outputs.known) > 1 else None
            if computed is None or place in computed:
                prompted, unprompted, inner = self._forward(latents, sigma)
                seen.append(SeenStep(sigma, latents, prompted, unprompted, inner, forecast))
                velocity = outputs.learn(sigma, unprompted + guidance * (prompted - unprompted))
            else:
                assert forecast is not None
                velocity = forecast
            latents = latents + (following - sigma) * velocity
        return RunUnderWay(latents, tuple(outputs.known), tuple(seen))

    def _forward(self, latents: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of the prompted and of the other rows, and what the middle of the denoiser made of the first."""
        inner: list[Tensor] = []
        hook = self.model.unet.mid_block.register_forward_hook(lambda _module, _inputs, output: inner.append(output))
        try:
            rows = self.model.unet(
                torch.cat([latents, latents]),
                torch.full((2 * len(latents),), sigma * 1000),
                self.conditions.hidden,
                class_labels=self.conditions.cls,
            ).sample
        finally:
            hook.remove()
        prompted, unprompted = rows.chunk(2)
        return prompted, unprompted, inner[0][: len(latents)]

    def draw(self) -> tuple[dict[str, Tensor], dict[str, RunUnderWay]]:
        """Final latents of each way, and the runs as each look finds them."""
        finals: dict[str, Tensor] = {}
        looks: dict[str, RunUnderWay] = {}

        def end(name: str, run: RunUnderWay, sigmas: Sequence[float], steps: Collection[int] | None = None) -> None:
            finals[name] = self.advance(run, sigmas, steps).latents

        start = RunUnderWay(self.model.noise(self.seeds))
        looks["forecast, after 2"] = two = self.advance(start, GRID[:3])
        end(EXACT, two, GRID[2:])
        end("forecast 2", two, GRID[2:], range(1, 10, 2))
        looks["forecast, after 3"] = three = self.advance(two, GRID[2:6], [CHOSEN[2] - 2])
        end("steps 0, 1, 4, 8", three, GRID[5:], [CHOSEN[3] - 5])
        end("forecast 3", three, GRID[5:], [2, 5])
        end("steps 0, 1, 4, 6, 8, 10", three, GRID[5:], [1, 3, 5])
        end("steps 0, 1, 4 and all from 5", three, GRID[5:])
        for steps, tails in SHORT.items():
            after = 1 - SHORT_LOOK / steps
            run = self.advance(start, np.linspace(1, after, SHORT_LOOK + 1).tolist())
            looks[f"{steps} steps, after {SHORT_LOOK}"] = run
            for tail in tails:
                name = f"{SHORT_LOOK} of {steps} steps, then {tail}"
                name = f"{steps} steps" if tail == steps - SHORT_LOOK else name
                end(name, run, np.linspace(after, 0, tail + 1).tolist())
        for name, (skip, before) in SKIPS.items():
            resumed = RunUnderWay(self.model.noised(self.finals, skip, self.seeds))
            looks[f"{name}, after {before}"] = look = self.advance(resumed, GRID[skip : skip + before + 1])
            end(name, look, GRID[skip + before :])
        return finals, looks


def draw_block(num_kept: int, num_asked: int, seed: int) -> Document:
    """Captions of their own; blocks of other seeds share none. Quality is in 0..1."""
    model, embedder, rng = ScenesModel.load(), Embedder(embedder_path()), np.random.default_rng([seed, 29])
    scenes = [sample_scene(rng) for _ in range(num_kept)]
    kept = [AskedCaption(scene, caption(scene, rng), int(rng.integers(1 << 31))) for scene in scenes]
    asked = list(ask(kept, num_asked, rng))
    of_asked, of_kept = (
        np.stack([embedder.embed_now(one.text).vector for one in captions]) for captions in (asked, kept)
    )
    cosines = of_asked @ of_kept.T
    sources = [_exact(model, kept[part]) for part in _parts(num_kept)]
    finals = torch.cat(sources)[torch.from_numpy(cosines.argmax(1))]
    document: Document = {"seed": seed, "similarity": _rounded(cosines.max(1)), "vector": _rounded(of_asked)}
    document |= {"quality": {}, "looks": {}}
    for part in _parts(num_asked):
        batch = BatchToDraw.of(model, asked[part], finals[part])
        _score(batch, document)
        say(f"block {seed}: {len(document['quality'][EXACT])} of {num_asked} captions are drawn")
    return document


def _exact(model: ScenesModel, captions: Sequence[AskedCaption]) -> Tensor:
    batch = BatchToDraw.of(model, captions, torch.empty(0))
    return batch.advance(RunUnderWay(model.noise(batch.seeds)), GRID).latents


def _score(batch: BatchToDraw, document: Document) -> None:
    """Draw a batch, and add its scores and what was seen."""
    to_images: Callable[[Tensor], Any] = batch.model.to_images
    finals, looks = batch.draw()
    for name, latents in finals.items():
        scores = [score_image(*pair).quality for pair in zip(to_images(latents), _scenes(batch), strict=True)]
        document["quality"].setdefault(name, []).extend(scores)
    for name, run in looks.items():
        stored = batch.finals if name.startswith("skip") else None
        seen = look_features(run.seen, batch.model.constants.default_guidance_scale, stored)
        preview = to_images(seen.estimate)
        whole = (score_image(*pair) for pair in zip(preview, _scenes(batch), strict=True))
        judged = [[one.quality, one.facts_fraction, one.fine_fraction, one.sharpness] for one in whole]
        groups = {**seen.groups, "judged": np.array(judged)}
        into = document["looks"].setdefault(name, {})
        for group, rows in groups.items():
            into.setdefault(group, []).extend(_rounded(rows))


def _scenes(batch: BatchToDraw) -> list[Any]:
    return [one.scene for one in batch.asked]


def _parts(count: int) -> list[slice]:
    return [slice(at, at + BATCH) for at in range(0, count, BATCH)]


def _rounded(values: Any) -> Any:
    """As lists of five digits: what is kept of a block stays small."""
    return np.array([float(f"{value:.5g}") for value in np.ravel(values)]).reshape(np.shape(values)).tolist()
