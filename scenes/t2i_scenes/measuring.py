"""Draw and score many captions, for the model card and the quality tables."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from t2i_scenes.sampling import Resume, ScenesModel
from t2i_scenes.scene import Scene
from t2i_scenes.scoring import Score, score_image

BATCH = 16
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class AskedCaption:
    """`text` is a caption of `scene`."""

    scene: Scene
    text: str
    seed: int


@dataclass(frozen=True, slots=True)
class MeasuredScores:
    """Scores and images uint8 [B,48,48,3] in the order of the captions, and the kept latents [B,C,h,w] by step."""

    scores: list[Score]
    images: npt.NDArray[np.uint8]
    latents: dict[int, Tensor]

    def mean(self, name: str) -> float:
        """The mean of a field of `Score`."""
        return float(np.mean([getattr(score, name) for score in self.scores]))


@dataclass(frozen=True, slots=True)
class MeasureSettings:
    """`resume` holds the latents of all captions; `keep_before` names the steps whose incoming latents are kept."""

    num_inference_steps: int
    guidance_scale: float
    resume: Resume | None = None
    keep_before: Sequence[int] = ()


def measure(
    model: ScenesModel, asked: Sequence[AskedCaption], settings: MeasureSettings, title: str, progress: Progress
) -> MeasuredScores:
    """Draw and score all captions in batches. `progress` gets the title, the number done and the number of all."""
    import torch

    images: list[npt.NDArray[np.uint8]] = []
    kept: dict[int, list[Tensor]] = {step: [] for step in settings.keep_before}
    for at in range(0, len(asked), BATCH):
        part = asked[at : at + BATCH]
        resume = settings.resume
        drawn = model.draw(
            [one.text for one in part],
            [one.seed for one in part],
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            resume=None if resume is None else Resume(resume.step, resume.latents[at : at + BATCH]),
            keep_before=settings.keep_before,
        )
        images.append(drawn.images)
        for step, latents in drawn.latents.items():
            kept[step].append(latents)
        progress(title, at + len(part), len(asked))
    pictures = np.concatenate(images)
    scores = [score_image(image, one.scene) for image, one in zip(pictures, asked, strict=True)]
    return MeasuredScores(scores, pictures, {step: torch.cat(parts) for step, parts in kept.items()})
