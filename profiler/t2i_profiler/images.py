"""A prompt to draw, and how far apart its images are, pixel by pixel. What an image is worth is told by `judges/`."""

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from t2i_scenes import Scene

Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")
_SIDE = 64


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt to draw. `scene` is what it says, where that is known."""

    prompt: str
    seed: int
    scene: Scene | None = None


def image_distance(one: bytes, other: bytes) -> float:
    """As `pixel_distance`, of two encoded images."""
    return pixel_distance(to_pixels(one), to_pixels(other))


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
    return np.asarray(open_image(image))


def open_image(image: bytes) -> Image.Image:
    """An encoded image, RGB."""
    return Image.open(io.BytesIO(image)).convert("RGB")
