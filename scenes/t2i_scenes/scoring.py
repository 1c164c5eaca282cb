"""Score a picture against its scene, exactly and without a trained model.

    facts   = share of the caption's statements that hold in the picture
    fine    = (palette + sharpness) / 2
    quality = facts * fine

palette is exp(-d / 20). Here d is the mean RGB distance of a pixel to the nearest tone of the renderer. sharpness is 1
if edges are as steep as in rendered pictures. Quality is a product, because drawing well only counts for what was
asked: a crisp picture of something else is worth its few true facts, not half the marks. Near a good picture a loss of
a hundredth of facts or of fine costs the same. The formula was fixed before any sampling result was seen. Rendered
pictures score 0.99 for their own caption, and about 0.22 for another one.

How facts are read: each pixel gets the nearest tone. Connected regions of ink and fill tones are things. Their
silhouette, fill, extent and centre decide shape, colour, size and arrangement. The things of the caption are matched to
different regions, such that most facts hold. Pixels outside all things decide the facts about the background.
"""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
import numpy.typing as npt

from t2i_scenes.observing import Region, is_arranged, observe_pattern, observe_regions
from t2i_scenes.palette import nearest_tone, tone_table
from t2i_scenes.scene import COLOURS, Fact, Scene, facts

#: Mean RGB distance at which the palette part of `fine` falls to 1/e.
PALETTE_SCALE = 20.0
#: Only this many regions are matched. A picture with more is wrong anyway, because its count fails.
_MAX_REGIONS = 5


@dataclass(frozen=True, slots=True)
class Score:
    """All in 0..1, but `palette_distance` in RGB units. `held` tells for each fact of the scene whether it holds."""

    facts_fraction: float
    fine_fraction: float
    quality: float
    palette_distance: float
    sharpness: float
    held: tuple[tuple[Fact, bool], ...]

    @property
    def strict(self) -> bool:
        """Whether every fact holds."""
        return all(holds for _, holds in self.held)


def score_image(image: npt.NDArray[np.uint8], scene: Scene) -> Score:
    """Score a uint8 [48,48,3] picture.

    Raises:
        ValueError: the picture has another shape or type.
    """
    if image.dtype != np.uint8 or image.shape != (48, 48, 3):
        raise ValueError(f"expected uint8 [48,48,3], got {image.dtype} {list(image.shape)}")
    tones = nearest_tone(image)
    held = _check_facts(image, tones, scene)
    distance = palette_distance(image, tones)
    steepness = sharpness(image)
    facts_fraction = sum(holds for _, holds in held) / len(held)
    fine = 0.5 * float(np.exp(-distance / PALETTE_SCALE)) + 0.5 * steepness
    return Score(facts_fraction, fine, facts_fraction * fine, distance, steepness, held)


def palette_distance(image: npt.NDArray[np.uint8], tones: npt.NDArray[np.int16]) -> float:
    """Mean RGB distance to the nearest tone, beyond the distance that rendered shades have too."""
    difference = image.astype(np.float32) - tone_table().rgb[tones]
    distances = np.sqrt((difference**2).sum(-1))
    return float(np.maximum(distances - _SHADE_GAP, 0).mean())


#: A rendered shade lies up to this far from the nearest row of the tone table.
_SHADE_GAP = 8.0


def sharpness(image: npt.NDArray[np.uint8]) -> float:
    """Steepness of edges: 1 for steps within one pixel, about 0.4 for steps over two pixels, 0 for a long ramp.

    An edge is where two pixels at a distance of two differ enough. There the larger of the two single-pixel differences
    is compared with the whole: sum(one^2) / sum(two^2). It is 1 for a single step and 1/4 within a ramp. In rendered
    pictures, whose outlines are one pixel wide, it is about 0.91 or more.
    """
    pixels = image.astype(np.float32)
    near = far = 0.0
    for axis in (0, 1):
        lines = np.moveaxis(pixels, axis, 0)
        two_apart = ((lines[2:] - lines[:-2]) ** 2).sum(-1)
        one_apart = np.maximum(((lines[1:-1] - lines[:-2]) ** 2).sum(-1), ((lines[2:] - lines[1:-1]) ** 2).sum(-1))
        edge = two_apart > _EDGE**2
        near += float(np.minimum(one_apart, two_apart)[edge].sum())
        far += float(two_apart[edge].sum())
    if far == 0.0:
        return 0.0
    return float(np.clip((near / far - _RAMP) / (_RENDERED - _RAMP), 0.0, 1.0))


#: The ratio within a ramp, and the one that nine in ten rendered pictures exceed.
_RAMP, _RENDERED = 0.25, 0.91
#: RGB distance two pixels apart that counts as an edge.
_EDGE = 24.0


def _check_facts(
    image: npt.NDArray[np.uint8], tones: npt.NDArray[np.int16], scene: Scene
) -> tuple[tuple[Fact, bool], ...]:
    regions, ground = observe_regions(tones)
    table = tone_table()
    grounds = np.bincount(table.colour[tones[ground & (table.role[tones] == 2)]], minlength=len(COLOURS))
    seen = {
        "background": COLOURS[int(grounds.argmax())] if grounds.any() else "",
        "pattern": observe_pattern(image, ground),
        "count": str(len(regions)),
    }
    chosen = _best_match(regions[:_MAX_REGIONS], scene)
    return tuple((fact, _holds(fact, scene, chosen, seen)) for fact in facts(scene))


def _best_match(regions: list[Region], scene: Scene) -> tuple[Region | None, ...]:
    """Choose a region (or None) for each thing, such that most facts about things and their arrangement hold."""
    count = len(scene.things)
    padded: list[Region | None] = [*regions, *[None] * max(0, count - len(regions))]
    about = [fact for fact in facts(scene) if fact.thing is not None or fact.kind == "arrangement"]
    return max(permutations(padded, count), key=lambda chosen: sum(_holds(fact, scene, chosen, {}) for fact in about))


def _holds(fact: Fact, scene: Scene, chosen: tuple[Region | None, ...], seen: dict[str, str]) -> bool:
    if fact.thing is not None:
        region = chosen[fact.thing]
        return region is not None and getattr(region, fact.kind) == fact.value
    if fact.kind == "arrangement":
        centres = [region.centre for region in chosen if region is not None]
        return len(centres) == len(scene.things) and is_arranged(centres, scene.arrangement)
    return seen[fact.kind] == fact.value
