"""Find what a picture shows, without its caption: regions that are things, and the pattern of the background."""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from t2i_scenes.palette import tone_table
from t2i_scenes.rendering import LARGE_ABOVE_PX, shape_mask
from t2i_scenes.scene import CANVAS_PX, COLOURS, SHAPES

Mask = npt.NDArray[np.bool_]
Point = tuple[float, float]  # (x, y) in pixels

#: Regions with fewer pixels are noise; the smallest thing, a cross of radius 6, has 57.
MIN_REGION_PX = 16
_INK, _THING = 0, 1


@dataclass(frozen=True, slots=True)
class Region:
    """One thing in the picture. A shape or colour that is not clear is empty."""

    colour: str
    shape: str
    size: str
    centre: Point
    area_px: int


class ObservedRegions(NamedTuple):
    """Things by falling area, and the pixels that are at least one pixel away from all of them."""

    things: list[Region]
    ground: Mask


def observe_regions(tones: npt.NDArray[np.int16]) -> ObservedRegions:
    """`tones` [H,W] are indexes into the tone table."""
    table = tone_table()
    painted = table.role[tones] <= _THING
    labels, count = ndimage.label(painted, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    regions: list[Region] = []
    kept = np.zeros(tones.shape, np.bool_)
    for index, window in enumerate(ndimage.find_objects(labels), start=1):
        if sizes[index] < MIN_REGION_PX:
            continue
        mask = labels[window] == index
        kept[window] |= mask
        regions.append(_region(mask, tones[window][mask], window))
    regions.sort(key=lambda region: -region.area_px)
    return ObservedRegions(regions, ~ndimage.binary_dilation(kept))


def _region(mask: Mask, tones: npt.NDArray[np.int16], window: tuple[slice, slice]) -> Region:
    table = tone_table()
    # The most frequent fill tone decides, because single pixels may be wrong.
    fills = np.bincount(table.colour[tones[table.role[tones] == _THING]], minlength=len(COLOURS))
    height, width = mask.shape
    extent = max(height, width)
    return Region(
        colour=COLOURS[int(fills.argmax())] if fills.any() else "",
        shape=_shape(mask),
        size="large" if _radius(mask, extent) > LARGE_ABOVE_PX else "small",
        centre=(window[1].start + (width - 1) / 2, window[0].start + (height - 1) / 2),
        area_px=int(mask.sum()),
    )


def _radius(mask: Mask, extent: int) -> float:
    """Half the extent. A square is drawn a seventh smaller than its radius, so its extent is scaled back."""
    return (extent - 1) / 2 / (0.86 if mask.mean() > 0.93 else 1.0)


def _shape(mask: Mask) -> str:
    """The shape whose template, stretched to the same box, has the largest intersection over union."""
    height, width = mask.shape
    if max(height, width) > CANVAS_PX - 4 or min(height, width) < 5:
        return ""
    best, best_overlap = "", 0.6  # with less overlap it is none of the shapes
    for shape in SHAPES:
        template = _fitted(shape, height, width)
        overlap = float((template & mask).sum() / (template | mask).sum())
        if overlap > best_overlap:
            best, best_overlap = shape, overlap
    return best


@lru_cache(maxsize=4096)
def _fitted(shape: str, height: int, width: int) -> Mask:
    """The template of a shape, stretched to a box of this size."""
    mask = shape_mask(shape, max(5, round((max(height, width) - 1) / 2 / (0.86 if shape == "square" else 1.0))))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    mask = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pick_rows = np.linspace(0, mask.shape[0] - 1, height).round().astype(int)
    pick_columns = np.linspace(0, mask.shape[1] - 1, width).round().astype(int)
    fitted: Mask = mask[np.ix_(pick_rows, pick_columns)]
    return fitted


def is_arranged(centres: list[Point], arrangement: str) -> bool:
    """Whether centres in reading order have this arrangement. The limits in pixels follow from the renderer."""
    if len(centres) == 1:
        return _place(centres[0]) == arrangement
    steps = np.diff(np.array(centres), axis=0)
    along_x, along_y = bool((steps[:, 0] > 7).all()), bool((steps[:, 1] > 7).all())
    flat_x, flat_y = bool((abs(steps[:, 0]) < 11).all()), bool((abs(steps[:, 1]) < 11).all())
    match arrangement:
        case "row":
            return along_x and flat_y
        case "column":
            return along_y and flat_x
        case _:
            return along_x and along_y


def _place(centre: Point) -> str:
    def third(value: float) -> int:
        return 0 if value < 19.5 else 2 if value > 27.5 else 1

    column = ("left", "", "right")[third(centre[0])]
    row = ("top", "", "bottom")[third(centre[1])]
    return f"{row} {column}".strip() or "center"


def observe_pattern(image: npt.NDArray[np.uint8], ground: Mask) -> str:
    """The regular pattern, of any phase and width, that correlates best with the background's lightness.

    Empty if too little background is visible, or no pattern correlates enough.
    """
    if ground.sum() < 200:
        return ""
    light = image.astype(np.float32).mean(-1)
    values = light[ground]
    centred = values - values.mean()
    spread = float(np.sqrt((centred**2).mean()))
    if spread < _PLAIN_SPREAD:
        return "plain"
    names, templates = _pattern_templates()
    seen = templates[:, ground.ravel()]
    seen = seen - seen.mean(1, keepdims=True)
    norms = np.sqrt((seen**2).sum(1)) * np.sqrt((centred**2).sum())
    explained = (seen @ centred) / np.maximum(norms, 1e-6)
    best = int(explained.argmax())
    if explained[best] > _EXPLAINED:
        return names[best]
    return "speckled" if _is_speckled(light, ground) else ""


#: Standard deviation of lightness (0..255) below which a background is plain.
_PLAIN_SPREAD = 4.0
#: Least correlation with an ideal pattern.
_EXPLAINED = 0.7


def _is_speckled(light: npt.NDArray[np.float32], ground: Mask) -> bool:
    """Whether few pixels are dark, and the others are even."""
    values = light[ground]
    dark = values < np.median(values) * 0.88
    even = float(values[~dark].std()) < 2 * _PLAIN_SPREAD
    return even and 0.015 < float(dark.mean()) < 0.15


@lru_cache(maxsize=1)
def _pattern_templates() -> tuple[tuple[str, ...], npt.NDArray[np.float32]]:
    """Every regular pattern at every width and phase: names [P] and lightness [P,H*W]."""
    y, x = np.mgrid[0:CANVAS_PX, 0:CANVAS_PX]
    found: list[tuple[str, npt.NDArray[np.float64]]] = [("fading", -y * 1.0)]
    for width in (2, 3, 4):
        for phase in range(2 * width):
            found.append(("striped", -((y + phase) // width % 2) * 1.0))
            found.append(("barred", -((x + phase) // width % 2) * 1.0))
    for width in (3, 4, 5):
        for down in range(2 * width):
            rows = (y + down) // width
            found.extend(("checked", -((rows + (x + across) // width) % 2) * 1.0) for across in range(width))
    for pitch in (5, 6):
        for down in range(pitch):
            for across in range(pitch):
                dots = ((y + down) % pitch < 2) & ((x + across) % pitch < 2)
                found.append(("dotted", dots * -1.0))
    names = tuple(name for name, _ in found)
    return names, np.stack([values.ravel() for _, values in found]).astype(np.float32)
