"""Files of strangers: what is no image is refused by name before it costs much, what is one is seen as people do."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image as PillowImage
from PIL import PngImagePlugin

from t2i_runtime.input_images import InputImages
from t2i_worker.errors import JobInvalid
from t2i_worker.input_images import decode_images

RED = PillowImage.new("RGB", (6, 4), (200, 30, 40))


def file_of(picture: PillowImage.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nothing."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    whole = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data = b"IDAT" + zlib.compress(b"")
    return whole + struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))


def many_scans() -> bytes:
    """A progressive JPEG whose last scan comes five hundred times."""
    whole = file_of(PillowImage.effect_noise((64, 64), 50), "JPEG", progressive=True)
    scan = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + 500 * scan + whole[-2:]


def long_text() -> bytes:
    """A text of a hundred megabytes in a few kilobytes."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "a" * 100_000_000, zip=True)
    return file_of(RED, pnginfo=info)


SIZES = "must be at most 4096x4096 pixels"
WHOLE = "must be a whole PNG, JPEG or WEBP file"
BAD = {
    "a PNG cut in the middle": (lambda: file_of(PillowImage.effect_noise((90, 90), 50))[:2000], WHOLE),
    "a JPEG cut in the middle": (lambda: file_of(PillowImage.effect_noise((90, 90), 50), "JPEG")[:900], WHOLE),
    "a WEBP cut in the middle": (lambda: file_of(PillowImage.effect_noise((90, 90), 50), "WEBP")[:300], WHOLE),
    "the first bytes of a PNG alone": (lambda: b"\x89PNG\r\n\x1a\n", WHOLE),
    "noise behind the first bytes of a JPEG": (lambda: b"\xff\xd8\xff" + bytes(range(256)), WHOLE),
    "a GIF": (lambda: file_of(RED, "GIF"), WHOLE),
    "a TIFF": (lambda: file_of(RED, "TIFF"), WHOLE),
    "a header of 2,500 megapixels": (lambda: png_header(50_000, 50_000), SIZES),
    "a header of 2 billion pixels a side": (lambda: png_header(2**31 - 1, 2**31 - 1), SIZES),
    "one side of 4,097 pixels": (lambda: file_of(PillowImage.new("L", (4097, 1))), f"{SIZES}, got 4097x1"),
    "a PNG without pixels": (lambda: png_header(64, 64), WHOLE),
    "a JPEG of 500 scans": (many_scans, "must be a JPEG file of at most 100 scans"),
    "a text that explodes": (long_text, WHOLE),
}


@pytest.mark.parametrize("case", BAD)
def test_file_that_cannot_be_drawn_from_is_named(case: str) -> None:
    make, says = BAD[case]
    good = file_of(RED)
    with pytest.raises(JobInvalid) as refused:
        decode_images(InputImages(good, None, good, (good, make())))
    assert [one.field for one in refused.value.violations] == ["drawing.images.reference_images[1]"]
    assert says in refused.value.violations[0].description


def turned() -> bytes:
    """Half black, half white; the camera was held upright."""
    picture = PillowImage.fromarray(np.array([[0, 255]] * 2, np.uint8)).resize((8, 4), PillowImage.Resampling.NEAREST)
    exif = picture.getexif()
    exif[0x0112] = 6  # turn right by 90 degrees to see it
    return file_of(picture, "PNG", exif=exif)


def palette() -> bytes:
    picture = RED.convert("P", palette=PillowImage.Palette.ADAPTIVE)
    return file_of(picture, transparency=0)


def animated() -> bytes:
    return file_of(RED, "WEBP", save_all=True, append_images=[PillowImage.new("RGB", (6, 4), "blue")], lossless=True)


GOOD: dict[str, tuple[Callable[[], bytes], tuple[int, int], tuple[int, int, int]]] = {
    "a PNG": (lambda: file_of(RED), (6, 4), (200, 30, 40)),
    "a JPEG in CMYK": (lambda: file_of(RED.convert("CMYK"), "JPEG", quality=100), (6, 4), (200, 30, 40)),
    "a palette with a transparent colour": (palette, (6, 4), (200, 30, 40)),
    "alpha": (lambda: file_of(RED.convert("RGBA")), (6, 4), (200, 30, 40)),
    "gray and alpha": (lambda: file_of(PillowImage.new("LA", (6, 4), (120, 10))), (6, 4), (120, 120, 120)),
    "one bit": (lambda: file_of(PillowImage.new("1", (6, 4), 1)), (6, 4), (255, 255, 255)),
    "gray of 16 bits": (
        lambda: file_of(PillowImage.fromarray(np.full((4, 6), 120 << 8, np.uint16))),
        (6, 4),
        (120, 120, 120),
    ),
    "turned by its EXIF": (turned, (4, 8), (0, 0, 0)),
    "the first frame of several": (animated, (6, 4), (200, 30, 40)),
}


@pytest.mark.parametrize("case", GOOD)
def test_image_is_seen_as_people_see_it(case: str) -> None:
    make, size, color = GOOD[case]
    picture = decode_images(InputImages(make())).init
    assert picture is not None
    assert (picture.mode, picture.size) == ("RGB", size)
    assert np.abs(np.asarray(picture)[0, 0].astype(int) - color).max() <= 4


def test_large_reference_is_shrunk_and_a_mask_is_gray() -> None:
    """Four of 16 megapixels would fill the memory of a worker, and models look at one."""
    large = file_of(PillowImage.new("RGB", (4096, 1024)))
    decoded = decode_images(InputImages(large, mask=file_of(RED), reference_images=(large,)))
    assert decoded.references[0].size == (2048, 512)
    assert decoded.init is not None
    assert decoded.mask is not None
    assert (decoded.init.size, decoded.mask.mode) == ((4096, 1024), "L")


@pytest.mark.parametrize(
    ("color", "drawn_anew"),
    [((255, 255, 255, 0), 255), ((0, 0, 0, 255), 0), ((255, 255, 255, 255), 255), ((0, 0, 0, 128), 127)],
    ids=["transparent", "opaque black", "opaque white", "half"],
)
def test_a_mask_means_its_transparent_places_or_else_its_white_ones(
    color: tuple[int, int, int, int], drawn_anew: int
) -> None:
    """OpenAI's clients send masks that are transparent where the image is drawn anew."""
    mask = file_of(PillowImage.new("RGBA", (6, 4), color))
    decoded = decode_images(InputImages(file_of(RED), mask=mask)).mask
    assert decoded is not None
    assert decoded.getextrema() == (drawn_anew, drawn_anew)
