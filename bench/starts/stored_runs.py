"""Runs whose latents are stored: exact ones, short ones, and ones that were resumed themselves, over generations.

Each source caption has three ancestors, each a paraphrase or an edit of the next. A run of generation g is the last of
g resumed ones: the g-th ancestor runs in full, its descendants resume in turn. The source caption and its seed stay the
same, so requests that start from its run of each generation are compared in pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.kit.output import progress
from t2i_scenes import caption, edit_scene, sample_scene
from t2i_scenes.measuring import AskedCaption, MeasuredScores, MeasureSettings, measure
from t2i_scenes.sampling import Resume, ScenesModel

SKIPS = (3, 6, 9)
SHORT = (6, 4)  # of 12 steps
GENERATIONS = 3
HOP_EDITS, HOP_SHARES = (0, 1, 2), (0.4, 0.4, 0.2)  # facts that differ between a run and the one it resumed from
Skips = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Line:
    """A source caption in `members[0]`, then its ancestors; `resumed_at[h]` is where member h started from h + 1."""

    members: tuple[AskedCaption, ...]
    resumed_at: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RunToDraw:
    """What all runs share."""

    model: ScenesModel
    steps: int

    def run(
        self,
        asked: Sequence[AskedCaption],
        title: str,
        resume: Resume | None = None,
        keep: Sequence[int] = (),
        steps: int | None = None,
    ) -> MeasuredScores:
        settings = MeasureSettings(steps or self.steps, self.model.constants.default_guidance_scale, resume, keep)
        return measure(self.model, asked, settings, title, progress)

    def resume_final(self, asked: Sequence[AskedCaption], finals: Tensor, skip: int, title: str) -> MeasuredScores:
        """From final latents, noised anew to this step with the requests' own noise."""
        start = self.model.noised(finals, skip, [one.seed for one in asked])
        return self.run(asked, title, Resume(skip, start), [self.steps])

    def resume_each(self, asked: Sequence[AskedCaption], finals: Tensor, skips: Skips, title: str) -> "StoredRun":
        """As `resume_final`, each at its own step."""
        quality, latents = np.zeros(len(asked)), torch.zeros_like(finals)
        for skip in sorted({int(one) for one in skips}):
            places = np.flatnonzero(skips == skip)
            chosen = [asked[int(place)] for place in places]
            drawn = self.resume_final(chosen, finals[torch.from_numpy(places)], skip, f"{title}, K={skip}")
            quality[places] = [score.quality for score in drawn.scores]
            latents[torch.from_numpy(places)] = drawn.latents[self.steps]
        return StoredRun(quality, {self.steps: latents})


@dataclass(frozen=True, slots=True)
class StoredRun:
    """What runs of all source captions scored, and their latents by the step that they enter; the last is final."""

    quality: "np.ndarray[Any, np.dtype[np.float64]]"
    latents: dict[int, Tensor]

    @classmethod
    def of(cls, drawn: MeasuredScores) -> "StoredRun":
        return cls(np.array([score.quality for score in drawn.scores]), drawn.latents)


def make_lines(count: int, rng: np.random.Generator) -> list[Line]:
    lines = []
    for _ in range(count):
        scene = sample_scene(rng)
        members = []
        for _ in range(GENERATIONS + 1):
            members.append(AskedCaption(scene, caption(scene, rng), int(rng.integers(1 << 31))))
            scene = edit_scene(scene, rng, int(rng.choice(HOP_EDITS, p=HOP_SHARES)))
        lines.append(Line(tuple(members), tuple(int(rng.choice(SKIPS)) for _ in range(GENERATIONS))))
    return lines


def hops_of(lines: Sequence[Line], hop: int) -> Skips:
    return np.array([line.resumed_at[hop] for line in lines])


def draw_stored(drawing: RunToDraw, lines: Sequence[Line]) -> dict[str, StoredRun]:
    """Runs of every source caption, by what they are."""
    last = drawing.steps
    members = [[line.members[at] for line in lines] for at in range(GENERATIONS + 1)]
    exact = [drawing.run(one, "exact sources", keep=[*SKIPS, last]) for one in members]
    stored = {"exact": StoredRun.of(exact[0])}
    for steps in SHORT:
        drawn = drawing.run(members[0], f"sources of {steps} steps", keep=[steps // 2, steps], steps=steps)
        stored[f"{steps} steps"] = StoredRun.of(drawn)
    for generation in range(1, GENERATIONS + 1):
        finals = exact[generation].latents[last]
        for at in reversed(range(generation)):
            run = drawing.resume_each(members[at], finals, hops_of(lines, at), f"generation {generation}")
            finals = run.latents[last]
        stored[f"resumed, generation {generation}"] = run
    stored["trajectory, generation 1"] = StoredRun.of(_on_trajectory(drawing, members, exact[1].latents[3], 0, 3))
    parents = _on_trajectory(drawing, members, exact[2].latents[3], 1, 3)
    stored["trajectory, generation 2"] = StoredRun.of(_on_trajectory(drawing, members, parents.latents[6], 0, 6))
    return stored


def _on_trajectory(
    drawing: RunToDraw, members: Sequence[Sequence[AskedCaption]], latents: Tensor, at: int, skip: int
) -> MeasuredScores:
    """Member `at` of each line resumes from its ancestor's stored state; later states of its own run are kept."""
    seeds, theirs = [one.seed for one in members[at]], [one.seed for one in members[at + 1]]
    start = drawing.model.with_own_noise(latents, skip, seeds, theirs)
    return drawing.run(members[at], "from states", Resume(skip, start), [one for one in SKIPS if one > skip])
