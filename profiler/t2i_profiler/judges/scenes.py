"""The exact scorer of the scenes model: facts times fine quality, in 0..1. It needs captions whose scene is known."""

import asyncio
from collections.abc import Sequence

from t2i_profiler.errors import JudgeFailed
from t2i_profiler.images import Sample, to_pixels
from t2i_profiler.judges.judge import JudgeCard, JudgedImage, Scale
from t2i_scenes import score_image

SCORER_VERSION = "1"  # its digest: another number whenever `t2i_scenes.scoring` scores an image otherwise


class SceneJudge:
    """Scores what a caption says against what is drawn."""

    def __init__(self) -> None:
        self.card = JudgeCard("scenes", "builtin://scenes", SCORER_VERSION, Scale())

    async def score(self, images: Sequence[JudgedImage]) -> list[float]:
        """As `Judge`."""
        return await asyncio.to_thread(lambda: [scene_quality(one.image, one.sample) for one in images])

    async def close(self) -> None:
        """Nothing was started."""


def scene_quality(image: bytes, sample: Sample) -> float:
    """In 0..1.

    Raises:
        JudgeFailed: nobody knows what the prompt's scene is.
    """
    if sample.scene is None:
        raise JudgeFailed("--judge scenes scores captions of the scenes model only")
    return score_image(to_pixels(image), sample.scene).quality
