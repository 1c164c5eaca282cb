"""Encode pixels as png, jpeg or webp. Call it in a thread: Pillow's encoders release the GIL."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from t2i_worker.jobs import ImageFormat

FORMATS: tuple[ImageFormat, ...] = ("png", "jpeg", "webp")
PREVIEW_MAX_SIDE_PX = 256
#: Moderate effort: on a CPU worker the encoders share the cores with the denoise thread.
_OPTIONS: dict[ImageFormat, dict[str, int | bool]] = {
    "png": {"compress_level": 4},
    "jpeg": {"quality": 92, "optimize": False},
    "webp": {"quality": 90, "method": 3},
}


def encode_image(pixels: npt.NDArray[np.uint8], image_format: ImageFormat) -> bytes:
    """Encode uint8 [H, W, 3]. Equal pixels give equal bytes."""
    out = io.BytesIO()
    PillowImage.fromarray(pixels, "RGB").save(out, image_format, **_OPTIONS[image_format])
    return out.getvalue()


def encode_preview(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Shrink uint8 [H, W, 3] to a webp of at most PREVIEW_MAX_SIDE_PX a side."""
    image = PillowImage.fromarray(pixels, "RGB")
    image.thumbnail((PREVIEW_MAX_SIDE_PX, PREVIEW_MAX_SIDE_PX))
    return encode_image(np.asarray(image), "webp")
