"""Features of a prompt: few, cheap, of no model in particular; what the predictor may weigh beside similarity.

Only the new prompt is read. The cache keeps no words of earlier prompts (they are private), so nothing here may need
them; measured on the embedded model, words shared with the neighbour say nothing that the similarity does not
(`bench/results/predictor.md`). The choice follows HADIS (arXiv 2509.00642): length, and what image models are known to
get wrong: several demands at once, counts, and where things stand. Counts enter as log2(1 + n), so that the tenth word
weighs less than the second.
"""

import re
from dataclasses import dataclass, fields
from math import log2

_WORD = re.compile(r"\w+")
_SEPARATOR = re.compile(r"[,;:.|\n]+")
_NUMBERS = frozenset(("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"))
_RELATIONS = frozenset(
    (
        *("above", "over", "below", "under", "beneath", "top", "bottom", "middle", "center", "centre", "corner"),
        *("left", "right", "behind", "front", "beside", "between", "inside", "outside", "next", "near", "around"),
        *("across", "against"),
    )
)


@dataclass(frozen=True, slots=True)
class PromptFeatures:
    """Each is log2(1 + n): n words, n separators between parts, n numbers (above one), n words of place."""

    words: float
    clauses: float
    numbers: float
    relations: float

    def value(self, name: str) -> float:
        """One feature by its name, one of `FEATURES`."""
        found: float = getattr(self, name)
        return found


FEATURES: tuple[str, ...] = tuple(one.name for one in fields(PromptFeatures))


def read_prompt(prompt: str) -> PromptFeatures:
    """The features of a prompt; an empty one has all at 0."""
    words = _WORD.findall(prompt.lower())
    return PromptFeatures(
        words=log2(1 + len(words)),
        clauses=log2(1 + len(_SEPARATOR.findall(prompt.strip()))),
        numbers=log2(1 + sum(word in _NUMBERS or (word.isdecimal() and word != "1") for word in words)),
        relations=log2(1 + sum(word in _RELATIONS for word in words)),
    )
