"""Twins of a prompt: nearly the same words for another picture. Pure.

Embedders give a prompt and its twin a higher cosine than two wordings of one picture: 0.99 for exchanged colours or
roles, 0.86 to 0.94 for paraphrases. So `t2ictl profile` measures what a prompt loses that starts from its twin.

Made from the prompt's own words, by rules that know few words of English:

    Recoloured   two colours change places
    Resized      two sizes change places
    Exchanged    what stands before and after a relation changes places
    Reversed     left and right, above and below, day and night, ... turn into each other
    Negated      "with" turns into "without", and back
    Recounted    a number is another one
    Reweighted   (word:1.4) weighs little, or two weights change places
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

#: Words of one line are near enough to paraphrase each other; those of two lines are not.
COLOURS: Mapping[str, int] = {
    word: number
    for number, line in enumerate((
        "red scarlet crimson", "orange amber", "yellow golden gold", "green emerald", "blue azure navy",
        "teal turquoise cyan", "purple violet magenta", "pink rose", "brown chocolate", "beige", "white snowy", "black",
        "gray grey silver",
    ))
    for word in line.split()
}  # fmt: skip
SIZES: Mapping[str, int] = {
    word: number
    for number, line in enumerate(("small little tiny short thin narrow", "large big huge giant tall thick wide"))
    for word in line.split()
}
OPPOSITES: Mapping[str, str] = {
    one: other
    for pair in (
        "left right", "above below", "top bottom", "upper lower", "inside outside", "indoors outdoors",
        "behind before", "day night", "sunrise sunset", "summer winter", "young old", "open closed", "happy sad",
    )
    for one, other in (pair.split(), reversed(pair.split()))
}  # fmt: skip
RELATIONS = (
    "to the left of", "to the right of", "left of", "right of", "above", "below", "on top of", "under", "underneath",
    "behind", "in front of", "inside", "over", "on",
)  # fmt: skip
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DETERMINERS = ("a", "an", "the", *NUMBERS)
_LINKS = ("on", "over", "under", "in", "at", "with", "without", "by", "near", "and", "of", "to", "from", "while", "as")
#: A phrase that ends in one of these is a place or the picture itself, and changes places with nothing.
_NO_THINGS = frozenset((
    "left", "right", "top", "bottom", "center", "middle", "row", "column", "diagonal", "corner", "edge",
    "image", "picture", "photo", "painting", "drawing", "portrait", "render", "illustration", "style",
    "background", "backdrop", "wall",
))  # fmt: skip
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_NUMBER = re.compile(r"(?<![\w.:,])([1-9]\d?)(?=\s+[^\W\d_]{3,})")
_WEIGHT = re.compile(r"(?<=:)\s*(\d+(?:\.\d+)?)\s*(?=\))")
_OTHER = re.compile(r"\s+(?:the|each|one an)\s*other\b")
_ARTICLE = re.compile(r"\b(an?)(?=\s+([^\W\d_]))")
_LITTLE, _MUCH = "0.2", "1.4"


class TwinKind(StrEnum):
    """What sets a twin apart."""

    RECOLOURED = "Recoloured"
    RESIZED = "Resized"
    EXCHANGED = "Exchanged"
    REVERSED = "Reversed"
    NEGATED = "Negated"
    RECOUNTED = "Recounted"
    REWEIGHTED = "Reweighted"


@dataclass(frozen=True, slots=True)
class Twin:
    """Another prompt of nearly the same words, and in words what was done."""

    prompt: str
    kind: TwinKind
    reason: str


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    end: int
    text: str


def make_twins(prompt: str, rng: np.random.Generator) -> tuple[Twin, ...]:
    """At most one of each kind, in the order of `TwinKind`; which words are taken is drawn."""
    makers: Sequence[Callable[[str, np.random.Generator], Twin | None]] = (
        _recolour, _resize, _exchange, _reverse, _negate, _recount, _reweight,
    )  # fmt: skip
    found = [maker(prompt, rng) for maker in makers]
    keeps_rule = _with_articles(prompt) == prompt
    twins = [one if not keeps_rule else _mended(one) for one in found if one is not None]
    return tuple(one for one in twins if one.prompt != prompt)


def _recolour(prompt: str, rng: np.random.Generator) -> Twin | None:
    return _swap_two(prompt, rng, COLOURS, TwinKind.RECOLOURED)


def _resize(prompt: str, rng: np.random.Generator) -> Twin | None:
    return _swap_two(prompt, rng, SIZES, TwinKind.RESIZED)


def _swap_two(prompt: str, rng: np.random.Generator, families: Mapping[str, int], kind: TwinKind) -> Twin | None:
    places = [one for one in _words(prompt) if one.text.lower() in families]
    pairs = [
        (one, other)
        for at, one in enumerate(places)
        for other in places[at + 1 :]
        if families[one.text.lower()] != families[other.text.lower()]
    ]
    if not pairs:
        return None
    one, other = pairs[int(rng.integers(len(pairs)))]
    return Twin(_swapped(prompt, one, other), kind, f"{one.text} and {other.text} changed places")


def _exchange(prompt: str, rng: np.random.Generator) -> Twin | None:
    """`A RELATION B`, or `A VERBing B`; both sides begin with an article or a number."""
    del rng
    words = list(_words(prompt))
    for first, last in _relations(words):
        before, after = _phrase_before(prompt, words[:first]), _phrase_after(prompt, words[last:])
        if before is not None and after is not None and before.text.lower() != after.text.lower():
            relation = prompt[words[first].start : words[last - 1].end]
            return Twin(
                _swapped(prompt, before, after),
                TwinKind.EXCHANGED,
                f"{before.text} and {after.text} changed places around {relation}",
            )
    return None


def _relations(words: Sequence[_Span]) -> list[tuple[int, int]]:
    """Places [first, last) in `words`: of verbs, then of relations in their order."""
    lower = [one.text.lower() for one in words]
    found: list[tuple[int, int]] = []
    for relation in RELATIONS:
        parts = relation.split()
        found += [(at, at + len(parts)) for at in range(1, len(lower)) if lower[at : at + len(parts)] == parts]
    verbs = [at for at, word in enumerate(lower) if at and len(word) > 5 and word.endswith("ing")]
    return [*((at, at + 1) for at in verbs), *found]


def _phrase_before(prompt: str, words: Sequence[_Span]) -> _Span | None:
    """From the last article or number up to the relation, with nothing but words between."""
    for word in reversed(words[-5:]):
        if word.text.lower() in _DETERMINERS:
            span = prompt[word.start : words[-1].end]
            return _Span(word.start, words[-1].end, span) if _is_phrase(span) else None
    return None


def _phrase_after(prompt: str, words: Sequence[_Span]) -> _Span | None:
    """From the article or number right after the relation up to the next link or sign."""
    if not words or words[0].text.lower() not in _DETERMINERS:
        return None
    end = words[0].end
    for word in words[1:6]:
        if word.text.lower() in _LINKS or prompt[end : word.start].strip():
            break
        end = word.end
    span = prompt[words[0].start : end]
    return _Span(words[0].start, end, span) if _is_phrase(span) else None


def _is_phrase(text: str) -> bool:
    parts = text.lower().split()
    plain = not any(part in _LINKS for part in parts) and not re.search(r"[^\w\s'-]", text)
    return plain and len(parts) > 1 and parts[-1] not in _NO_THINGS


def _reverse(prompt: str, rng: np.random.Generator) -> Twin | None:
    said = {one.text.lower() for one in _words(prompt)}
    places = [
        one
        for one in _words(prompt)
        if OPPOSITES.get(one.text.lower(), "") not in (said | {""}) and not _OTHER.match(prompt, one.end)
    ]  # "from left to right" and "one above the other" are the same picture when turned round
    if not places:
        return None
    chosen = places[int(rng.integers(len(places)))].text.lower()
    pair = {chosen, OPPOSITES[chosen]}
    twin = _replaced(prompt, [(one, OPPOSITES[one.text.lower()]) for one in places if one.text.lower() in pair])
    return Twin(twin, TwinKind.REVERSED, f"{chosen} turned into {OPPOSITES[chosen]}")


def _negate(prompt: str, rng: np.random.Generator) -> Twin | None:
    turned = {"with": "without", "without": "with"}
    places = [one for one in _words(prompt) if one.text.lower() in turned]
    if not places:
        return None
    one = places[int(rng.integers(len(places)))]
    other = turned[one.text.lower()]
    return Twin(_replaced(prompt, [(one, other)]), TwinKind.NEGATED, f"{one.text} turned into {other}")


def _recount(prompt: str, rng: np.random.Generator) -> Twin | None:
    """Not a number that is part of a name, such as `8k`, `3 d` or `f/1.8`."""
    words = [(one, NUMBERS) for one in _words(prompt) if one.text.lower() in NUMBERS[1:]]
    digits = [(_Span(one.start(), one.end(), one.group()), [str(n) for n in range(1, 101)])
              for one in _NUMBER.finditer(prompt)]  # fmt: skip
    places = [*words, *digits]
    if not places:
        return None
    one, names = places[int(rng.integers(len(places)))]
    at = names.index(one.text.lower())
    others = [names[near] for near in (at - 1, at + 1) if 0 <= near < len(names) and names[near] != "one"]
    other = others[int(rng.integers(len(others)))]
    return Twin(_replaced(prompt, [(one, other)]), TwinKind.RECOUNTED, f"{one.text} turned into {other}")


def _reweight(prompt: str, rng: np.random.Generator) -> Twin | None:
    places = [_Span(one.start(1), one.end(1), one.group(1)) for one in _WEIGHT.finditer(prompt)]
    if not places:
        return None
    pairs = [(one, other) for at, one in enumerate(places) for other in places[at + 1 :] if one.text != other.text]
    if pairs:
        one, other = pairs[int(rng.integers(len(pairs)))]
        return Twin(
            _swapped(prompt, one, other), TwinKind.REWEIGHTED, f"weights {one.text} and {other.text} changed places"
        )
    one = places[int(rng.integers(len(places)))]
    weight = _LITTLE if float(one.text) >= 1 else _MUCH
    return Twin(_replaced(prompt, [(one, weight)]), TwinKind.REWEIGHTED, f"weight {one.text} turned into {weight}")


def _words(prompt: str) -> list[_Span]:
    return [_Span(one.start(), one.end(), one.group()) for one in _WORD.finditer(prompt)]


def _swapped(prompt: str, one: _Span, other: _Span) -> str:
    return _replaced(prompt, [(one, other.text), (other, one.text)])


def _replaced(prompt: str, changes: Sequence[tuple[_Span, str]]) -> str:
    for span, text in sorted(changes, key=lambda change: -change[0].start):
        prompt = prompt[: span.start] + text + prompt[span.end :]
    return prompt


def _mended(twin: Twin) -> Twin:
    return Twin(_with_articles(twin.prompt), twin.kind, twin.reason)


def _with_articles(prompt: str) -> str:
    """`a` before consonants and `an` before vowels; prompts that do not keep to it are left as they are."""
    return _ARTICLE.sub(lambda found: "an" if found.group(2).lower() in "aeiou" else "a", prompt)
