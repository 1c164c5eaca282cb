"""Judges whose network runs in this process: beside the event loop, some images at a time."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from t2i_profiler.judges.judge import JudgeCard, JudgedImage

BATCH = 16


class NetworkJudge(ABC):
    """A `Judge` that says how it scores some images at once."""

    def __init__(self, card: JudgeCard, device: str) -> None:
        self.card = card
        self._device = device

    async def score(self, images: Sequence[JudgedImage]) -> list[float]:
        """As `Judge`."""
        return await asyncio.to_thread(self._score_all, images)

    async def close(self) -> None:  # noqa: B027  an end for all of them, not a duty
        """Nothing was started."""

    @torch.inference_mode()
    def _score_all(self, images: Sequence[JudgedImage]) -> list[float]:
        parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        return [score for part in parts for score in self._score(part)]

    @abstractmethod
    def _score(self, images: Sequence[JudgedImage]) -> list[float]:
        """Of up to BATCH images, in order; gradients are off."""
