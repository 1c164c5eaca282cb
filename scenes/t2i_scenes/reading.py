"""Reading captions: the scene that a caption states. It knows what `captions` says, and nothing else."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from t2i_scenes.captions import (
    BACKWARD_WORDS,
    FORWARD_WORDS,
    OPENINGS,
    PAIR_WORDS,
    PLACE_WORDS,
    PLURALS,
    SYNONYMS,
    TRIO_WORDS,
)
from t2i_scenes.scene import COLOURS, PATTERNS, SHAPES, SIZES, Scene, Thing

_NUMBERS = {"two": 2, "three": 3}


def read_caption(text: str) -> Scene | None:
    """The scene of a caption; None if it is none."""
    said = " ".join(text.lower().split()).rstrip(".")
    found = _patterns()[0].fullmatch(said) or _patterns()[1].fullmatch(said)
    if found is None:
        return None
    try:
        return _scene(found["things"], _meaning(COLOURS)[found["ground"]], _meaning(PATTERNS)[found["pattern"]])
    except ValueError:
        return None  # words of a caption that make no scene, such as a red thing on a red background


def _scene(things: str, background: str, pattern: str) -> Scene | None:
    if (one := _thing_pattern().match(things)) and (place := _turned(PLACE_WORDS).get(things[one.end() :].strip())):
        return Scene((_thing(one),), place, background, pattern)
    if many := _many_pattern().match(things):
        number = _NUMBERS[many["number"]]
        arranged = _turned(PAIR_WORDS if number == 2 else TRIO_WORDS).get(things[many.end() :].strip())
        return None if arranged is None else Scene((_thing(many),) * number, arranged, background, pattern)
    parts = [*_thing_pattern().finditer(things)]
    between = [things[a.end() : b.start()].strip() for a, b in itertools.pairwise(parts)]
    last = things[parts[-1].end() :].strip() if parts else ""
    if not parts or parts[0].start():
        return None
    said = tuple(_thing(part) for part in parts)
    if between == [",", "and"] and (arranged := _turned(TRIO_WORDS).get(last)):
        return Scene(said, arranged, background, pattern)
    if len(said) != 2 or last:
        return None
    if forward := _turned(FORWARD_WORDS).get(between[0]):
        return Scene(said, forward, background, pattern)
    if backward := _turned(BACKWARD_WORDS).get(between[0]):
        return Scene((said[1], said[0]), backward, background, pattern)
    return None


def _thing(found: re.Match[str]) -> Thing:
    size, shape = found["size"], found["shape"]
    return Thing(_meaning(COLOURS)[found["colour"]], _shapes()[shape], None if size is None else _meaning(SIZES)[size])


@cache
def _meaning(words: Sequence[str]) -> Mapping[str, str]:
    """From each synonym to its word."""
    return {synonym: word for word in words for synonym in SYNONYMS[word]}


@cache
def _shapes() -> Mapping[str, str]:
    single = _meaning(SHAPES)
    return {**single, **{PLURALS.get(synonym, f"{synonym}s"): word for synonym, word in single.items()}}


def _turned(table: Mapping[str, Sequence[str]]) -> Mapping[str, str]:
    return {phrase: arrangement for arrangement, phrases in table.items() for phrase in phrases}


@cache
def _patterns() -> Sequence[re.Pattern[str]]:
    ground = rf"(?P<pattern>{_any(_meaning(PATTERNS))}) (?P<ground>{_any(_meaning(COLOURS))})"
    ground = rf"a {ground} (?:{_any(SYNONYMS['background'])})"
    opening = f"(?:(?:{_any(one for one in OPENINGS if one)}) )?"
    return (
        re.compile(rf"on {ground}, (?P<things>.+)"),
        re.compile(rf"{opening}(?P<things>.+) (?:on|over|in front of) {ground}"),
    )


@cache
def _thing_pattern() -> re.Pattern[str]:
    colours, sizes, shapes = (_any(_meaning(words)) for words in (COLOURS, SIZES, SHAPES))
    return re.compile(rf"\ban? (?:(?P<size>{sizes}) )?(?P<colour>{colours}) (?P<shape>{shapes})\b")


@cache
def _many_pattern() -> re.Pattern[str]:
    colours, sizes = (_any(_meaning(words)) for words in (COLOURS, SIZES))
    shapes = _any(_shapes())
    return re.compile(
        rf"(?P<number>{_any(_NUMBERS)}) (?:(?P<size>{sizes}) )?(?P<colour>{colours}) (?P<shape>{shapes})\b"
    )


def _any(words: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))
