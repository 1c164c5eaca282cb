"""A scene holds exactly the facts that a caption states.

These are one to three things, their arrangement, and the background. The things are in reading order: left to right in
a row or along the diagonal, top to bottom in a column. So "a circle left of a square" and "a square right of a circle"
are the same scene. Equal scenes have equal facts.

What a caption does not say (exact position, exact radius, shade, phase of a pattern) is not part of the scene. The
renderer draws it at random, and a model must make it up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

CANVAS_PX = 48

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white", "gray")
SHAPES = ("circle", "square", "triangle", "ring", "cross", "diamond")
SIZES = ("small", "large")
PATTERNS = ("plain", "striped", "barred", "checked", "dotted", "speckled", "fading")
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
PAIR_ARRANGEMENTS = ("row", "column")
TRIO_ARRANGEMENTS = ("row", "column", "diagonal")

#: By the number of things. One thing has a place; two are beside or above each other; three may be along the diagonal.
ARRANGEMENTS: Mapping[int, tuple[str, ...]] = {1: PLACES, 2: PAIR_ARRANGEMENTS, 3: TRIO_ARRANGEMENTS}

FactKind = Literal["colour", "shape", "size", "arrangement", "background", "pattern", "count"]


@dataclass(frozen=True, slots=True)
class Thing:
    """`size` is None if the scene has three things: all are of middle size, and captions do not say it."""

    colour: str
    shape: str
    size: str | None


@dataclass(frozen=True, slots=True)
class Scene:
    """`things` are in reading order; `arrangement` is one of ARRANGEMENTS[len(things)]."""

    things: tuple[Thing, ...]
    arrangement: str
    background: str
    pattern: str

    def __post_init__(self) -> None:
        if self.arrangement not in ARRANGEMENTS.get(len(self.things), ()):
            raise ValueError(f"{len(self.things)} things cannot be arranged as {self.arrangement!r}")
        if any(thing.colour == self.background for thing in self.things):
            raise ValueError(f"a {self.background} thing cannot be seen on a {self.background} background")
        if any((thing.size is None) != (len(self.things) == 3) for thing in self.things):
            raise ValueError("things have a size when there are one or two of them, and none when there are three")


@dataclass(frozen=True, slots=True)
class Fact:
    """One statement of a caption. `thing` is the index of the thing that it is about; None = the whole scene."""

    kind: FactKind
    value: str
    thing: int | None = None


def facts(scene: Scene) -> tuple[Fact, ...]:
    """The 7 to 11 statements of every caption of this scene."""
    about_things: list[Fact] = []
    for index, thing in enumerate(scene.things):
        about_things.append(Fact("colour", thing.colour, index))
        about_things.append(Fact("shape", thing.shape, index))
        if thing.size is not None:
            about_things.append(Fact("size", thing.size, index))
    return (
        *about_things,
        Fact("arrangement", scene.arrangement),
        Fact("background", scene.background),
        Fact("pattern", scene.pattern),
        Fact("count", str(len(scene.things))),
    )
