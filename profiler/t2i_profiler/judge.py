"""How good an image is, for profiles and demos.

Captions of the scenes model are judged by its exact scorer. For any other model there is no such judge: images are
compared with the exact run of the same prompt and seed (structural similarity, Wang et al. 2004, on 64x64 luminance),
so the loss then means distance from exact, not from the prompt.

How far two images of one prompt are apart (`pixel_distance`) is judged alike for every model.
"""

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from t2i_scenes import Scene, score_image

Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_SIDE, _WINDOW = 64, 8


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt to draw. `scene` is what it says, where that is known."""

    prompt: str
    seed: int
    scene: Scene | None = None


class Judge(Protocol):
    """Scores an image in 0..1."""

    name: str

    def score(self, image: bytes, exact_image: bytes, sample: Sample) -> float:
        """The image's score; `exact_image` is the exact run of the same sample."""

    def distance(self, one: bytes, other: bytes) -> float:
        """How different two images of one prompt look, in 0..1."""


class _PixelDistance:
    """How different images look, pixel by pixel."""

    def distance(self, one: bytes, other: bytes) -> float:
        """As `pixel_distance`."""
        return pixel_distance(to_pixels(one), to_pixels(other))


class SceneJudge(_PixelDistance):
    """The scenes model's exact scorer: facts times fine quality."""

    name = "scenes: facts x fine quality"

    def score(self, image: bytes, exact_image: bytes, sample: Sample) -> float:
        del exact_image
        if sample.scene is None:
            raise ValueError("only captions of known scenes can be scored")
        return score_image(to_pixels(image), sample.scene).quality


class FidelityJudge(_PixelDistance):
    """Structural similarity to the exact image."""

    name = "structural similarity to the exact image"

    def score(self, image: bytes, exact_image: bytes, sample: Sample) -> float:
        del sample
        return structural_similarity(_luminance(image), _luminance(exact_image))


def pixel_distance(one: Pixels, other: Pixels) -> float:
    """Root mean square difference of two images uint8 [H,W,3] at 64x64 pixels, in 0..1; 0 for equal ones."""
    small = [np.asarray(Image.fromarray(image).resize((_SIDE, _SIDE)), np.float64) / 255 for image in (one, other)]
    return float(np.sqrt(((small[0] - small[1]) ** 2).mean()))


def spread(images: Sequence[T], distance: Callable[[T, T], float]) -> float:
    """Mean distance between every two of these images; 0 for fewer than two."""
    distances = [distance(one, other) for one, other in itertools.combinations(images, 2)]
    return float(np.mean(distances)) if distances else 0.0


def to_pixels(image: bytes) -> Pixels:
    """An encoded image as uint8 [H,W,3]."""
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))


def _luminance(image: bytes) -> npt.NDArray[np.float64]:
    return np.asarray(Image.open(io.BytesIO(image)).convert("L").resize((_SIDE, _SIDE)), np.float64)


def structural_similarity(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Mean SSIM over 8x8 blocks of two [64,64] luminance images; 1 for equal ones."""
    blocks = [
        image.reshape(_SIDE // _WINDOW, _WINDOW, _SIDE // _WINDOW, _WINDOW).swapaxes(1, 2).reshape(-1, _WINDOW**2)
        for image in (one, other)
    ]
    means = [block.mean(1) for block in blocks]
    deviations = [block - mean[:, None] for block, mean in zip(blocks, means, strict=True)]
    variances = [(deviation**2).mean(1) for deviation in deviations]
    covariance = (deviations[0] * deviations[1]).mean(1)
    top = (2 * means[0] * means[1] + _C1) * (2 * covariance + _C2)
    bottom = (means[0] ** 2 + means[1] ** 2 + _C1) * (variances[0] + variances[1] + _C2)
    return float((top / bottom).mean())
