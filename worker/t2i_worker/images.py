"""Encode pixels as png, jpeg or webp. Call it in a thread: Pillow's encoders release the GIL."""

import io
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL.PngImagePlugin import PngInfo

from t2i_worker.jobs import ImageFormat

FORMATS: tuple[ImageFormat, ...] = ("png", "jpeg", "webp")
PREVIEW_MAX_SIDE_PX = 256
#: Little effort: the encoders share the cores with the denoise thread. Runs alone suffice for png, because its filters
#: leave noise of photos: a third of the time of zlib's own matching at the same size. Flat graphics get larger.
_OPTIONS: dict[ImageFormat, dict[str, Any]] = {
    "png": {"compress_level": 1, "compress_type": zlib.Z_RLE},
    "jpeg": {"quality": 92, "optimize": False},
    "webp": {"quality": 90, "method": 3},
}


def encode_image(pixels: npt.NDArray[np.uint8], image_format: ImageFormat, xmp: bytes = b"") -> bytes:
    """Encode uint8 [H, W, 3], with an XMP packet if one is given. Equal arguments give equal bytes."""
    out, options = io.BytesIO(), _OPTIONS[image_format] | _metadata(image_format, xmp)
    PillowImage.fromarray(pixels, "RGB").save(out, image_format, **options)
    return out.getvalue()


def _metadata(image_format: ImageFormat, xmp: bytes) -> dict[str, Any]:
    """The encoder's arguments that put the packet into the file."""
    if not xmp:
        return {}
    if image_format != "png":
        return {"xmp": xmp}
    chunks = PngInfo()
    chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
    return {"pnginfo": chunks}


def encode_preview(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Shrink uint8 [H, W, 3] to a webp of at most PREVIEW_MAX_SIDE_PX a side."""
    image = PillowImage.fromarray(pixels, "RGB")
    image.thumbnail((PREVIEW_MAX_SIDE_PX, PREVIEW_MAX_SIDE_PX))
    return encode_image(np.asarray(image), "webp")
