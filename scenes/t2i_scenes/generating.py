"""Random scenes, and scenes that differ from a given one in an exact number of facts."""

from dataclasses import replace
from typing import Any, cast

import numpy as np

from t2i_scenes.scene import ARRANGEMENTS, COLOURS, PATTERNS, SHAPES, SIZES, Fact, Scene, Thing, facts

#: Share of scenes with 1, 2 and 3 things. Captions with more facts are harder, so pairs come most often.
_COUNT_SHARES = (0.35, 0.4, 0.25)
#: Share of scenes with several things in which all of them are equal ("three red circles").
_EQUAL_THINGS_SHARE = 0.2


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene. Backgrounds and patterns are uniform; no thing has the background's colour."""
    count = 1 + int(rng.choice(3, p=_COUNT_SHARES))
    background = _pick(rng, COLOURS)
    colours = tuple(colour for colour in COLOURS if colour != background)

    def sample_thing() -> Thing:
        return Thing(_pick(rng, colours), _pick(rng, SHAPES), _pick(rng, SIZES) if count < 3 else None)

    if count > 1 and rng.random() < _EQUAL_THINGS_SHARE:
        things = (sample_thing(),) * count
    else:
        things = tuple(sample_thing() for _ in range(count))
    return Scene(things, _pick(rng, ARRANGEMENTS[count]), background, _pick(rng, PATTERNS))


def edit_scene(scene: Scene, rng: np.random.Generator, num_edits: int) -> Scene:
    """Change exactly `num_edits` different facts of the scene; the count of things stays.

    Raises:
        ValueError: the scene has fewer facts.
    """
    editable = [fact for fact in facts(scene) if fact.kind != "count"]
    if num_edits > len(editable):
        raise ValueError(f"this scene has {len(editable)} facts that can be changed, not {num_edits}")
    chosen = rng.choice(len(editable), size=num_edits, replace=False)
    for index in sorted(int(i) for i in chosen):
        scene = _changed(scene, editable[index], rng)
    return scene


def _changed(scene: Scene, fact: Fact, rng: np.random.Generator) -> Scene:
    """Replace one fact by another value that the rest of the scene allows."""
    others = tuple(value for value in _allowed_values(scene, fact) if value != fact.value)
    value = _pick(rng, others)
    if fact.thing is None:
        return replace(scene, **cast(dict[str, Any], {fact.kind: value}))
    things = list(scene.things)
    things[fact.thing] = replace(things[fact.thing], **{fact.kind: value})
    return replace(scene, things=tuple(things))


def _allowed_values(scene: Scene, fact: Fact) -> tuple[str, ...]:
    match fact.kind:
        case "colour":
            return tuple(colour for colour in COLOURS if colour != scene.background)
        case "background":
            worn = {thing.colour for thing in scene.things}
            return tuple(colour for colour in COLOURS if colour not in worn)
        case "shape":
            return SHAPES
        case "size":
            return SIZES
        case "pattern":
            return PATTERNS
        case "arrangement":
            return ARRANGEMENTS[len(scene.things)]
        case "count":
            raise ValueError("the count of things cannot be edited")
