"""The tones that scenes are painted with, and the nearest of these tones for any pixel.

Every thing has a fill tone, a darker rim tone and an ink outline; every background has a base tone and an accent tone.
Backgrounds have softer tones, so a red thing differs from a red background. A random shade of at most SHADE_SPREAD
multiplies the tones of an image; captions never mention it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from t2i_scenes.scene import COLOURS

Tone = tuple[int, int, int]

INK: Tone = (24, 20, 34)
SHADE_SPREAD = 0.06
#: Steps between base and accent that a fading background may show, as fractions of the way.
FADE_STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)

FILL_TONES: Mapping[str, Tone] = {
    "red": (222, 32, 38), "orange": (250, 132, 14), "yellow": (252, 222, 36), "green": (34, 160, 62),
    "blue": (34, 84, 222), "purple": (128, 40, 176), "pink": (246, 96, 172), "brown": (124, 70, 32),
    "white": (250, 250, 250), "gray": (88, 92, 100),
}  # fmt: skip
BASE_TONES: Mapping[str, Tone] = {
    "red": (226, 128, 122), "orange": (252, 186, 104), "yellow": (246, 238, 160), "green": (150, 212, 150),
    "blue": (140, 184, 242), "purple": (190, 150, 222), "pink": (250, 192, 216), "brown": (176, 146, 126),
    "white": (206, 208, 206), "gray": (150, 158, 172),
}  # fmt: skip
#: An accent is the base tone times ACCENT_FACTOR, a rim the fill tone times _RIM_FACTOR. The rim of a white thing is
#: lilac, because a gray one would equal the accent of a white background.
ACCENT_FACTOR = 0.76
_RIM_FACTOR = 0.70
_WHITE_RIM: Tone = (178, 176, 214)


@dataclass(frozen=True, slots=True)
class ToneTable:
    """All tones that the renderer uses.

    `rgb` [T,3]. `role` [T]: 0 ink, 1 thing, 2 background. `colour` [T]: index into COLOURS or -1. `depth` [T]: 0 for
    fill and base, 1 for rim and accent, between them for fading backgrounds.
    """

    rgb: npt.NDArray[np.float32]
    role: npt.NDArray[np.int8]
    colour: npt.NDArray[np.int8]
    depth: npt.NDArray[np.float32]


def darkened(tone: Tone, factor: float) -> Tone:
    red, green, blue = (round(channel * factor) for channel in tone)
    return (red, green, blue)


def rim_tone(colour: str) -> Tone:
    return _WHITE_RIM if colour == "white" else darkened(FILL_TONES[colour], _RIM_FACTOR)


@lru_cache(maxsize=1)
def tone_table() -> ToneTable:
    rows: list[tuple[Tone, int, int, float]] = [(INK, 0, -1, 0.0)]
    for index, colour in enumerate(COLOURS):
        for shade in (1 - SHADE_SPREAD, 1.0, 1 + SHADE_SPREAD):
            rows.append((darkened(FILL_TONES[colour], shade), 1, index, 0.0))
            rows.append((darkened(rim_tone(colour), shade), 1, index, 1.0))
            for depth in FADE_STEPS:
                factor = shade * (1 - depth * (1 - ACCENT_FACTOR))
                rows.append((darkened(BASE_TONES[colour], factor), 2, index, depth))
    return ToneTable(
        rgb=np.clip(np.array([row[0] for row in rows], np.float32), 0, 255),
        role=np.array([row[1] for row in rows], np.int8),
        colour=np.array([row[2] for row in rows], np.int8),
        depth=np.array([row[3] for row in rows], np.float32),
    )


@lru_cache(maxsize=1)
def _nearest_by_cell() -> npt.NDArray[np.int16]:
    """The index of the nearest tone for each of the 32x32x32 cells of RGB space."""
    axis = np.arange(32, dtype=np.float32) * 8 + 4
    cells = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    tones = tone_table().rgb
    distances = (cells**2).sum(1)[:, None] - 2 * cells @ tones.T + (tones**2).sum(1)[None]
    nearest: npt.NDArray[np.int16] = distances.argmin(1).astype(np.int16)
    return nearest


def nearest_tone(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """image [H,W,3] -> [H,W]: each pixel's nearest tone, as an index into tone_table(). It is exact to 8 RGB units."""
    cell = (image >> 3).astype(np.int32)
    indexes: npt.NDArray[np.int16] = _nearest_by_cell()[(cell[..., 0] << 10) | (cell[..., 1] << 5) | cell[..., 2]]
    return indexes
