"""Pictures of scenes: 48x48 pixel art with hard edges and only the palette's tones.

What the caption leaves open is drawn at random: exact positions and radii, the shade, phases and widths of patterns.
A model must make these up. So its denoising path bends, and a schedule that is too short blurs.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from t2i_scenes import palette
from t2i_scenes.scene import CANVAS_PX, Scene, Thing

Mask = npt.NDArray[np.bool_]
Pixel = tuple[int, int]  # (x, y)

#: Radius in pixels by (count of things, size): half the width of the thing, outline included.
RADII_PX: dict[tuple[int, str | None], tuple[int, ...]] = {
    (1, "small"): (7, 8),
    (1, "large"): (12, 13),
    (2, "small"): (6, 7),
    (2, "large"): (10, 11),
    (3, None): (6, 7),
}
#: Things of one or two whose radius is above this are large.
LARGE_ABOVE_PX = 9.0


@lru_cache(maxsize=256)
def shape_mask(shape: str, radius: int) -> Mask:
    """The pixels of a shape with its outline, [2*radius+1, 2*radius+1]."""
    axis = np.arange(-radius, radius + 1)
    x, y = np.meshgrid(axis, axis)
    distance = np.hypot(x, y)
    match shape:
        case "circle":
            mask = distance <= radius + 0.35
        case "square":
            mask = np.maximum(abs(x), abs(y)) <= round(radius * 0.86)
        case "triangle":
            mask = abs(x) * 2 <= y + radius + 1
        case "ring":
            mask = (distance <= radius + 0.35) & (distance > radius * 0.40)
        case "cross":
            mask = np.minimum(abs(x), abs(y)) <= max(2, round(radius * 0.32))
        case "diamond":
            mask = abs(x) + abs(y) <= radius
        case _:
            raise ValueError(f"unknown shape {shape!r}")
    frozen: Mask = np.asarray(mask)
    frozen.setflags(write=False)  # the cache hands the same array to every caller
    return frozen


class _Layers(NamedTuple):
    """Disjoint masks; the rim is one or two pixels at the lower right."""

    outline: Mask
    rim: Mask
    fill: Mask


class _PlacedThing(NamedTuple):
    thing: Thing
    radius: int
    x: int
    y: int


@lru_cache(maxsize=256)
def _layers(shape: str, radius: int) -> _Layers:
    mask = shape_mask(shape, radius)
    inner = ndimage.binary_erosion(mask, border_value=0)
    padded = np.pad(inner, 1)
    lit = inner & padded[2:, 2:] & padded[2:, 1:-1]  # pixels that are not at the lower or right edge
    return _Layers(mask & ~inner, inner & ~lit, lit)


def render(scene: Scene, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw a random picture of the scene, uint8 [48,48,3]."""
    shade = 1 + rng.uniform(-palette.SHADE_SPREAD, palette.SHADE_SPREAD)
    base = np.array(palette.BASE_TONES[scene.background], np.float32) * shade
    accent = draw_accent(scene.pattern, rng)
    canvas = base * (1 - accent[..., None] * (1 - palette.ACCENT_FACTOR))
    shade = 1 + rng.uniform(-palette.SHADE_SPREAD, palette.SHADE_SPREAD)
    for placed in _placed(scene, rng):
        _paint(canvas, placed, shade)
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _paint(canvas: npt.NDArray[np.float32], placed: _PlacedThing, shade: float) -> None:
    thing, radius, x, y = placed
    window = canvas[y - radius : y + radius + 1, x - radius : x + radius + 1]
    layers = _layers(thing.shape, radius)
    window[layers.outline] = palette.INK
    window[layers.rim] = np.array(palette.rim_tone(thing.colour), np.float32) * shade
    window[layers.fill] = np.array(palette.FILL_TONES[thing.colour], np.float32) * shade


def _placed(scene: Scene, rng: np.random.Generator) -> list[_PlacedThing]:
    """Give each thing a radius and a centre, such that it lies inside the canvas and touches no other."""
    count = len(scene.things)
    radii = [int(rng.choice(RADII_PX[count, thing.size])) for thing in scene.things]
    match count:
        case 1:
            centres = [_place_centre(scene.arrangement, radii[0], rng)]
        case 2:
            centres = _pair_centres(scene.arrangement, radii, rng)
        case _:
            radii = [radii[0] if scene.arrangement == "diagonal" else 6] * 3
            centres = _trio_centres(scene.arrangement, rng)
    placed = zip(scene.things, radii, centres, strict=True)
    return [_PlacedThing(thing, radius, *centre) for thing, radius, centre in placed]


def _place_centre(place: str, radius: int, rng: np.random.Generator) -> Pixel:
    """A thing in an outer third lies near its edge."""

    def along(low: bool, high: bool) -> int:
        slack = int(rng.integers(0, 4))
        if low:
            return radius + 1 + slack
        if high:
            return CANVAS_PX - 2 - radius - slack
        return CANVAS_PX // 2 + int(rng.integers(-2, 2))

    return along("left" in place, "right" in place), along("top" in place, "bottom" in place)


def _pair_centres(arrangement: str, radii: list[int], rng: np.random.Generator) -> list[Pixel]:
    """Each thing lies anywhere in its half of the canvas, near the middle line across."""
    centres: list[Pixel] = []
    for index, radius in enumerate(radii):
        start = index * CANVAS_PX // 2
        gap = 1 - index  # one pixel stays free between the two
        along = int(rng.integers(start + radius, start + CANVAS_PX // 2 - radius - gap))
        across = CANVAS_PX // 2 + int(rng.integers(-5, 5))
        centres.append((along, across) if arrangement == "row" else (across, along))
    return centres


def _trio_centres(arrangement: str, rng: np.random.Generator) -> list[Pixel]:
    common = CANVAS_PX // 2 + int(rng.integers(-6, 6))
    centres: list[Pixel] = []
    for index in range(3):
        if arrangement == "diagonal":
            centres.append((7 + 16 * index + int(rng.integers(0, 2)), 7 + 16 * index + int(rng.integers(0, 2))))
            continue
        along = 7 + 16 * index + int(rng.integers(0, 3))
        across = common + int(rng.integers(-2, 3))
        centres.append((along, across) if arrangement == "row" else (across, along))
    return centres


def draw_accent(pattern: str, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """For each background pixel its way from the base tone (0) to the accent tone (1), [48,48]."""
    y, x = np.mgrid[0:CANVAS_PX, 0:CANVAS_PX]
    accent: npt.NDArray[Any]
    match pattern:
        case "plain":
            accent = np.zeros((CANVAS_PX, CANVAS_PX))
        case "striped" | "barred":
            width = int(rng.integers(2, 5))
            accent = ((y if pattern == "striped" else x) + rng.integers(2 * width)) // width % 2
        case "checked":
            width = int(rng.integers(3, 6))
            accent = ((y + rng.integers(2 * width)) // width + (x + rng.integers(2 * width)) // width) % 2
        case "dotted":
            pitch = int(rng.integers(5, 7))
            accent = 1.0 * (((y + rng.integers(pitch)) % pitch < 2) & ((x + rng.integers(pitch)) % pitch < 2))
        case "speckled":
            accent = 1.0 * (rng.random((CANVAS_PX, CANVAS_PX)) < 0.06)
        case "fading":
            accent = np.clip((y + rng.integers(-8, 9)) / (CANVAS_PX - 1), 0, 1)
        case _:
            raise ValueError(f"unknown pattern {pattern!r}")
    return np.asarray(accent, np.float32)
