"""HPSv2, a CLIP model trained on human preferences (Wu et al. 2023, arXiv 2306.09341), run by open_clip.

Its score is the cosine of image and prompt, as its authors' `hpsv2.score` gives it. It is published as a checkpoint of
open_clip's ViT-H-14. A folder may hold another architecture, in an `open_clip_config.json`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch

from t2i_profiler.errors import JudgeUnusable
from t2i_profiler.images import open_image
from t2i_profiler.judges.folders import JudgeFolder, read_weights
from t2i_profiler.judges.judge import JudgeCard, JudgedImage
from t2i_profiler.judges.networks import NetworkJudge

ARCHITECTURE = "ViT-H-14"
SETTINGS = "open_clip_config.json"
CHECKPOINTS = ("HPS_v2.1_compressed.pt", "HPS_v2_compressed.pt", "open_clip_model.safetensors")


class HpsJudge(NetworkJudge):
    """How well people like an image for its prompt."""

    def __init__(self, card: JudgeCard, folder: JudgeFolder, device: str) -> None:
        super().__init__(card, device)
        path = checkpoint_in(folder.path)
        if path is None:
            raise JudgeUnusable(f"--judge hps: {card.source!r} holds none of {', '.join(CHECKPOINTS)}")
        architecture = _architecture(folder.path)
        try:
            model, _, self._transform = open_clip.create_model_and_transforms(architecture, load_weights=False)
            model.load_state_dict(read_weights(path))
        except (RuntimeError, ValueError) as error:
            raise JudgeUnusable(f"--judge hps: {path.name} is no {architecture}: {str(error)[:300]}") from error
        self._tokenizer = open_clip.get_tokenizer(architecture)
        self._model: Any = model.eval().to(device)

    def _score(self, images: Sequence[JudgedImage]) -> list[float]:
        pixels = torch.stack([self._transform(open_image(one.image)) for one in images]).to(self._device)
        texts = self._tokenizer([one.sample.prompt for one in images]).to(self._device)
        seen = self._model.encode_image(pixels, normalize=True)
        read = self._model.encode_text(texts, normalize=True)
        return [float(score) for score in (seen * read).sum(-1)]


def checkpoint_in(folder: Path) -> Path | None:
    """The newest published one that lies there."""
    return next((folder / name for name in CHECKPOINTS if (folder / name).is_file()), None)


def _architecture(folder: Path) -> str:
    """As open_clip names it."""
    return f"local-dir:{folder}" if (folder / SETTINGS).is_file() else ARCHITECTURE
