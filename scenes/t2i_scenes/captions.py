"""Captions say every fact of a scene in words, in many ways.

Captions of one scene differ in word order, in synonyms and in which thing comes first. All state the same facts.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from t2i_scenes.scene import SHAPES, Scene, Thing

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "red": ("red", "scarlet"), "orange": ("orange", "amber"), "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"), "blue": ("blue", "azure"), "purple": ("purple", "violet"),
    "pink": ("pink", "rose"), "brown": ("brown", "chocolate"), "white": ("white", "snowy"), "gray": ("gray", "grey"),
    "circle": ("circle", "disc"), "square": ("square", "box"), "triangle": ("triangle", "wedge"),
    "ring": ("ring", "donut"), "cross": ("cross", "plus"), "diamond": ("diamond", "rhombus"),
    "small": ("small", "little", "tiny"), "large": ("large", "big", "huge"),
    "plain": ("plain", "flat"), "striped": ("striped", "lined"), "barred": ("barred", "fenced"),
    "checked": ("checked", "chequered"), "dotted": ("dotted", "spotted"), "speckled": ("speckled", "starry"),
    "fading": ("fading", "gradient"),
    "background": ("background", "backdrop", "wall"),
}  # fmt: skip
PLURALS = {"box": "boxes", "cross": "crosses", "plus": "pluses", "rhombus": "rhombuses"}
OPENINGS = ("", "", "", "a picture of", "an image showing", "draw", "please draw")
PLACE_WORDS: Mapping[str, tuple[str, ...]] = {
    "top left": ("in the top left corner", "at the upper left"),
    "top": ("at the top", "at the upper edge"),
    "top right": ("in the top right corner", "at the upper right"),
    "left": ("on the left", "at the left edge"),
    "center": ("in the center", "in the middle"),
    "right": ("on the right", "at the right edge"),
    "bottom left": ("in the bottom left corner", "at the lower left"),
    "bottom": ("at the bottom", "at the lower edge"),
    "bottom right": ("in the bottom right corner", "at the lower right"),
}
FORWARD_WORDS = {"row": ("left of", "to the left of"), "column": ("above", "on top of")}
BACKWARD_WORDS = {"row": ("right of", "to the right of"), "column": ("below", "under")}
PAIR_WORDS = {"row": ("side by side", "next to each other"), "column": ("stacked", "one above the other")}
TRIO_WORDS = {
    "row": ("in a row", "from left to right"),
    "column": ("in a column", "from top to bottom"),
    "diagonal": ("along a diagonal", "on a diagonal"),
}


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _say(rng: np.random.Generator, word: str) -> str:
    return _pick(rng, SYNONYMS[word])


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One random phrasing, lower case, at most 32 words and commas."""
    things = _things_phrase(scene, rng)
    background = f"{_say(rng, scene.pattern)} {_say(rng, scene.background)} {_say(rng, 'background')}"
    if rng.random() < 0.25:
        return f"on a {background}, {things}"
    opening = _pick(rng, OPENINGS)
    link = _pick(rng, ("on", "over", "in front of"))
    return f"{opening} {things} {link} a {background}".strip()


def _things_phrase(scene: Scene, rng: np.random.Generator) -> str:
    things, arrangement = scene.things, scene.arrangement
    if len(things) == 1:
        return f"{_one(things[0], rng)} {_pick(rng, PLACE_WORDS[arrangement])}"
    arranged = _pick(rng, PAIR_WORDS[arrangement] if len(things) == 2 else TRIO_WORDS[arrangement])
    if len(set(things)) == 1:
        return f"{_many(things[0], len(things), rng)} {arranged}"
    if len(things) == 3:
        said = [_one(thing, rng) for thing in things]
        return f"{said[0]}, {said[1]} and {said[2]} {arranged}"
    first, second = things
    if rng.random() < 0.5:
        return f"{_one(first, rng)} {_pick(rng, FORWARD_WORDS[arrangement])} {_one(second, rng)}"
    return f"{_one(second, rng)} {_pick(rng, BACKWARD_WORDS[arrangement])} {_one(first, rng)}"


def _one(thing: Thing, rng: np.random.Generator) -> str:
    words = [_say(rng, word) for word in (thing.size, thing.colour, thing.shape) if word is not None]
    article = "an" if words[0][0] in "aeiou" else "a"
    return " ".join((article, *words))


def _many(thing: Thing, count: int, rng: np.random.Generator) -> str:
    words = [_say(rng, word) for word in (thing.size, thing.colour) if word is not None]
    shape = _say(rng, thing.shape)
    number = {2: "two", 3: "three"}[count]
    return " ".join((number, *words, PLURALS.get(shape, f"{shape}s")))


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption can contain, sorted. The tokenizer knows these."""
    tables = (SYNONYMS, PLACE_WORDS, FORWARD_WORDS, BACKWARD_WORDS, PAIR_WORDS, TRIO_WORDS)
    phrases = [phrase for table in tables for options in table.values() for phrase in options]
    phrases += [PLURALS.get(word, f"{word}s") for shape in SHAPES for word in SYNONYMS[shape]]
    phrases += [*OPENINGS, "on over in front of and a an two three"]
    return tuple(sorted({word for phrase in phrases for word in phrase.split()}))
