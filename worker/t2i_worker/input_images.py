"""Decode the images that a request starts from: files of strangers, within bounds that the header tells.

Nothing is decoded before its size is known. A JPEG may ask to paint its pixels again in each of many scans; real ones
have a dozen. Frames beyond the first are not read.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps

from t2i_runtime.errors import Violation
from t2i_runtime.input_images import KINDS, ComponentFile, InputImages
from t2i_worker.errors import JobInvalid

Picture = PillowImage.Image
MAX_SIDE_PX = 4096
MAX_REFERENCE_SIDE_PX = 2048  # models look at about a megapixel; four of 16 would fill memory for nothing
MAX_JPEG_SCANS = 100
OPAQUE_ALPHA = 255
_START_OF_SCAN = b"\xff\xda"
_FORMATS = ("PNG", "JPEG", "WEBP")


@dataclass(frozen=True, slots=True)
class ComponentPicture:
    """The RGB input of a component of the pool, which acts so strongly."""

    component: str
    picture: Picture
    scale: float


@dataclass(frozen=True, slots=True)
class DecodedImages:
    """RGB pictures as people see them, turned as their EXIF says; `mask` is gray."""

    init: Picture | None = None
    mask: Picture | None = None
    references: tuple[Picture, ...] = ()
    strength: float | None = None
    control: ComponentPicture | None = None
    ip_adapter: ComponentPicture | None = None

    def __bool__(self) -> bool:
        return bool(self.init or self.mask or self.references or self.control or self.ip_adapter)

    @property
    def used(self) -> frozenset[str]:
        """Names of the fields of the request that are set, without those of components."""
        given: dict[str, object] = {"init_image": self.init, "mask": self.mask, "strength": self.strength}
        given |= {"reference_images": self.references or None}
        return frozenset(name for name, value in given.items() if value is not None)


NO_PICTURES = DecodedImages()


def decode_images(images: InputImages) -> DecodedImages:
    """Takes a while: call it in a thread.

    Raises:
        JobInvalid: names every file that is no image, or too large.
    """
    pictures: dict[str, Picture] = {}
    violations = []
    for name, data in _files(images):
        try:
            pictures[name] = _decode(data)
        except _Unusable as error:
            violations.append(Violation(f"drawing.images.{name}", str(error)))
    if violations:
        raise JobInvalid(violations)
    mask = pictures.pop("mask", None)
    init = pictures.pop("init_image", None)
    of_components = {
        field: [
            ComponentPicture(one.component, pictures.pop(f"{field}[{index}].image").convert("RGB"), one.scale)
            for index, one in enumerate(given)
        ]
        for field, given in _of_components(images).items()
    }
    return DecodedImages(
        init=None if init is None else init.convert("RGB"),
        mask=None if mask is None else _where(mask),
        references=tuple(_shrunk(picture.convert("RGB")) for picture in pictures.values()),
        strength=images.strength,
        control=next(iter(of_components["control_images"]), None),
        ip_adapter=next(iter(of_components["ip_adapter_images"]), None),
    )


def fit(picture: Picture, width: int, height: int) -> Picture:
    """As diffusers' image processor does: stretched, with its filter."""
    if picture.size == (width, height):
        return picture
    return picture.resize((width, height), PillowImage.Resampling.LANCZOS)


class _Unusable(Exception):
    """Raised for a file that cannot be drawn from; the message says what it must be."""


def _files(images: InputImages) -> Iterator[tuple[str, bytes]]:
    if images.init_image:
        yield "init_image", images.init_image
    if images.mask:
        yield "mask", images.mask
    for index, data in enumerate(images.reference_images):
        yield f"reference_images[{index}]", data
    for field, given in _of_components(images).items():
        for index, one in enumerate(given):
            yield f"{field}[{index}].image", one.data


def _of_components(images: InputImages) -> dict[str, tuple[ComponentFile, ...]]:
    return {"control_images": images.control_images, "ip_adapter_images": images.ip_adapter_images}


def _decode(data: bytes) -> Picture:
    unreadable = _Unusable(f"must be a whole {KINDS} file")
    open_image = partial(PillowImage.open, io.BytesIO(data), formats=_FORMATS)
    try:
        picture = open_image()
    except PillowImage.DecompressionBombError:
        raise _too_large() from None
    except Exception:  # noqa: BLE001 - decoders raise anything
        raise unreadable from None
    if max(picture.size) > MAX_SIDE_PX:
        raise _too_large(picture.size)
    if picture.format == "JPEG" and data.count(_START_OF_SCAN) > MAX_JPEG_SCANS:
        raise _Unusable(f"must be a JPEG file of at most {MAX_JPEG_SCANS} scans")
    try:
        picture.load()
        return _in_8_bits(ImageOps.exif_transpose(picture))
    except Exception:  # noqa: BLE001
        raise unreadable from None


def _too_large(size: tuple[int, int] | None = None) -> _Unusable:
    got = f", got {size[0]}x{size[1]}" if size else ""
    return _Unusable(f"must be at most {MAX_SIDE_PX}x{MAX_SIDE_PX} pixels{got}")


def _in_8_bits(picture: Picture) -> Picture:
    """Gray of 16 bits would be clipped to white by a plain conversion."""
    if not picture.mode.startswith("I"):
        return picture
    return PillowImage.fromarray((np.asarray(picture).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8), "L")


def _where(mask: Picture) -> Picture:
    """Gray; white is drawn anew. Where a mask has transparent places these are meant, as OpenAI's clients send it."""
    if mask.has_transparency_data:
        alpha = mask.convert("RGBA").getchannel("A")
        if np.asarray(alpha).min() < OPAQUE_ALPHA:
            return ImageOps.invert(alpha)
    return mask.convert("L")


def _shrunk(picture: Picture) -> Picture:
    picture.thumbnail((MAX_REFERENCE_SIDE_PX, MAX_REFERENCE_SIDE_PX), PillowImage.Resampling.LANCZOS)
    return picture
