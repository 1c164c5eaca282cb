"""Images and judge folders that several tests here share."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_profiler.images import Sample
from t2i_profiler.judges.judge import JudgedImage
from t2i_testing_kit import tiny_judges

PROMPTS = ("a red circle", "two blue squares left of a dog", "x " * 60)


def png(seed: int, width: int = 96, height: int = 80) -> bytes:
    """Smooth blotches of colour."""
    small = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="session")
def judged() -> list[JudgedImage]:
    """Three images beside others; the last prompt is longer than any text encoder reads."""
    return [JudgedImage(png(at), png(at + 10), Sample(prompt, at)) for at, prompt in enumerate(PROMPTS)]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By kind of judge."""
    root = tmp_path_factory.mktemp("judges")
    clip, vgg = tiny_judges.clip_folder(root / "clip"), tiny_judges.vision_folder(root / "vgg16")
    return {
        "pickscore": clip,
        "clipscore": clip,
        "aesthetic": tiny_judges.aesthetic_folder(root / "aesthetic"),
        "aesthetic-1": tiny_judges.aesthetic_folder(root / "aesthetic-1", version=1),
        "hps": tiny_judges.hps_folder(root / "hps"),
        "lpips": vgg,
        "lpips-alex": tiny_judges.vision_folder(root / "alexnet", "alexnet"),
        "dists": vgg,
    }
