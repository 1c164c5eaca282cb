"""What a judge is: scores of its own scale, the quality in 0..1 that follows, and the loss that follows from that.

    quality = (score - lowest) / (highest - lowest), from the other end where a low score is good, cut to 0..1
    loss    = (mean quality of exact - mean quality of the level) / mean quality of exact      ratio of means
    win     = share of pairs (same prompt, same seed) in which the level scores better than exact; a tie is half a win

The ratio of means is the lineage's definition: "relative quality" of arXiv 2502.06798 and 2511.06724 is the mean
PickScore of what was served by that of exact images. Decisions go by it. A ratio depends on where a scale has its zero:
PickScore of any two images of one prompt differs by a few per cent only. Yet one of them may nearly always win. So the
win rate is told beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import NormalDist
from typing import Protocol

from t2i_policy.judge_record import JudgeRecord
from t2i_profiler.images import Sample


class Spacing(StrEnum):
    """How a score becomes a quality in 0..1."""

    LINEAR = "Linear"
    NORMAL = "Normal"  # the score is in standard deviations: quality is the share of images that it beats


@dataclass(frozen=True, slots=True)
class Scale:
    """Ends of a score's range, and which end is good. NORMAL has no ends."""

    lowest: float = 0.0
    highest: float = 1.0
    higher_is_better: bool = True
    spacing: Spacing = Spacing.LINEAR

    def quality(self, score: float) -> float:
        """In 0..1, 1 is best."""
        if self.spacing is Spacing.NORMAL:
            share = NormalDist().cdf(score)
        else:
            share = min(1.0, max(0.0, (score - self.lowest) / (self.highest - self.lowest)))
        return share if self.higher_is_better else 1.0 - share


@dataclass(frozen=True, slots=True)
class JudgeCard:
    """Who judges. Two judges of one kind with other weights have other digests, and are two judges.

    `compares`: it compares with the exact image, which loses nothing by definition and always wins.
    """

    kind: str
    source: str
    digest: str
    scale: Scale
    compares: bool = False

    @property
    def name(self) -> str:
        """For people and names of files."""
        return self.kind

    @property
    def record(self) -> JudgeRecord:
        """What a profile says of it."""
        return JudgeRecord(self.kind, self.source, self.digest, self.compares)


@dataclass(frozen=True, slots=True)
class JudgedImage:
    """An encoded image with its prompt and the exact image of the same prompt and seed."""

    image: bytes
    exact: bytes
    sample: Sample


class Judge(Protocol):
    """Scores images."""

    @property
    def card(self) -> JudgeCard: ...

    async def score(self, images: Sequence[JudgedImage]) -> list[float]:
        """A score of the judge's own scale for each image, in order.

        Raises:
            JudgeFailed: it cannot score these.
        """

    async def close(self) -> None:
        """End what it started."""


async def qualities(judge: Judge, images: Sequence[JudgedImage]) -> list[float]:
    """Of all images, in 0..1."""
    return [judge.card.scale.quality(score) for score in await judge.score(images)]
