"""Whether two prompts of nearly the same words ask for the same picture, told from short digests of their words.

To embedders "a red cube on a blue sphere" is near "a blue cube on a red sphere": their cosine is 0.99. They also put "a
dog biting a man" beside "a man biting a dog". What they overlook is read here by rule:

    distinguishing words   numbers, negations, colours, sizes, places, people, other opposites, and weights. Of each
                           kind the order counts, as it says what belongs to what. Words of one line mean the same.
    bag and order          all words but articles, sorted, and clause by clause as they stand; clauses are sorted, as
                           lists of tags are. One bag in two orders is an exchange.

    agree     the same words in the same order; or the same distinguishing words, at least one
    differ    the same bag in another order; or other distinguishing words
    unknown   else: nobody knows what tells two prompts apart that have no such word

Left out are words that paraphrases swap or drop, where the opposite has a word of its own: "with" beside "without",
"on" and "above" beside "below", "in front of" beside "behind", "inside" beside "outside", "day".

Distinguishing words are English. A prompt in another script has none that are read. Nor has one with more small words
of other languages than of English. Bag and order need no language.

A cache keeps the digests and never the words: 16 bits of each, mixed with whose latents they are and of which model.
Two different readings share one once in 65,536.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

_LINES: Mapping[str, str] = {
    "count": (
        "two 2 both pair twin twins|three 3|four 4|five 5|six 6|seven 7|eight 8|nine 9|ten 10|eleven 11|"
        "twelve 12 dozen|twenty 20|thirty 30|forty 40|fifty 50|hundred 100|several|many|few"
    ),
    "negation": "not no without never none nobody nothing lacking lacks nor neither cannot",
    "colour": (
        "red scarlet crimson|orange amber|yellow golden gold|green emerald|blue azure navy|teal turquoise cyan|"
        "purple violet magenta|pink rose|brown chocolate|beige|white snowy|black|gray grey silver"
    ),
    "size": (
        "small little tiny miniature smaller|large big huge giant enormous gigantic massive larger bigger|short|tall|"
        "long|thin narrow slim|thick wide broad"
    ),
    "place": (
        "left|right|top upper topmost|bottom lower|below under beneath underneath|behind|outside outdoors|"
        "center centre middle|row|column|diagonal diagonally"
    ),
    "person": "man men guy guys gentleman male males|woman women lady ladies female females|boy boys|girl girls",
    "opposite": (
        "night nighttime|sunrise dawn|sunset dusk|summer|winter|spring|autumn|young|old elderly|open opened|"
        "closed shut|happy|sad crying|empty|hot|cold|wet|dry|dark darkness|bright"
    ),
}
#: Phrases that are read as one word, or as none; a longer one stands before its part.
_PHRASES: Mapping[str, str] = {
    "one above the other": "column", "on top of each other": "column", "on top of one another": "column",
    "from top to bottom": "column", "in a column": "column", "stacked": "column",
    "from left to right": "row", "from right to left": "row", "next to each other": "row", "side by side": "row",
    "in a row": "row", "on top of": "on", "a few": "few", "a couple of": "two", "right in front": "in front",
    "right next": "next", "no one": "nobody",
}  # fmt: skip


def _set_of(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


_ENGLISH = _set_of("a an the of in on at with without and is are to from by for its his her their over under this that")
_OTHERS = _set_of(
    "der die das und ein eine einen einem einer mit auf im von dem den ist",
    "le les un une des du et avec sur dans au aux est",
    "el los las una unas unos y con sobre del",
    "il gli uno di della nel alla",
    "um uma os com em na",
    "een het op en ett och med av",
)
_ARTICLES = frozenset(("a", "an", "the"))
_WEIGHT = re.compile(r":\s*(\d+(?:\.\d+)?)\s*\)")
_NO_COUNT = re.compile(r"\d+(?:[.:,/]\d+)+|\d+%")  # ratios, versions and shares
_TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|(?<![^\W_])\d+(?![^\W_])")
_ANY_WORD = re.compile(r"\w+")
_CLAUSE_END = re.compile(r"[,;.|\n]+")
_PHRASE = re.compile(r"\b(?:" + "|".join(re.escape(one) for one in _PHRASES) + r")\b")
_LAST_LATIN = "\u024f"
_UNREAD = "____"
_DIGITS = 4


class _Meaning(NamedTuple):
    kind: int
    word: str


_MEANINGS: Mapping[str, _Meaning] = {
    word: _Meaning(kind, line.split()[0])
    for kind, lines in enumerate(_LINES.values())
    for line in lines.split("|")
    for word in line.split()
}


def read_distinguishing_words(prompt: str) -> tuple[str, ...] | None:
    """The first word of each found word's line, kind by kind, in order; None where the language is not read."""
    text = prompt.casefold()
    if not text.isascii() and any(one > _LAST_LATIN and one.isalpha() for one in text):
        return None
    weights = tuple(f"{float(one):g}" for one in _WEIGHT.findall(text))
    plain = _NO_COUNT.sub(" ", _WEIGHT.sub(" ", text))
    tokens = _TOKEN.findall(_PHRASE.sub(lambda found: _PHRASES[found.group()], plain))
    if sum(one in _OTHERS for one in tokens) > sum(one in _ENGLISH for one in tokens):
        return None
    found = sorted((one for one in map(_meaning, tokens) if one is not None), key=lambda one: one.kind)
    return (*(one.word for one in found), *weights)


def _meaning(token: str) -> _Meaning | None:
    if token.endswith(("n't", "n’t")):
        return _MEANINGS["not"]
    if token.isdecimal() and token not in _MEANINGS:
        return _Meaning(0, f"{int(token)}") if int(token) > 1 else None
    return _MEANINGS.get(token)


@dataclass(frozen=True, slots=True)
class WordDigests:
    """What may be kept of a prompt's words. `distinguishing` is empty where they were not read.

    `says_any`: at least one distinguishing word was found.
    """

    distinguishing: str
    bag: str
    order: str
    says_any: bool

    @property
    def text(self) -> str:
        """12 characters, as an entry keeps them; `agrees` reads them."""
        return f"{self.distinguishing or _UNREAD}{self.bag}{self.order}"

    def agrees(self, kept: str) -> bool | None:
        """Whether a prompt that left this text says the same; None = unknown, as for what is no such text."""
        if len(kept) != 3 * _DIGITS:
            return None
        theirs, bag, order = kept[:_DIGITS], kept[_DIGITS : 2 * _DIGITS], kept[2 * _DIGITS :]
        if bag == self.bag:
            return order == self.order
        if not self.distinguishing or theirs == _UNREAD:
            return None
        if theirs != self.distinguishing:
            return False
        return True if self.says_any else None


def digest_words(prompt: str, *owner: str) -> WordDigests:
    """`owner`: whose latents these are and of which model, so that digests elsewhere say nothing of it."""
    words = read_distinguishing_words(prompt)
    clauses = [
        [one for one in _ANY_WORD.findall(clause) if one not in _ARTICLES]
        for clause in _CLAUSE_END.split(prompt.casefold())
    ]
    return WordDigests(
        "" if words is None else _digest("words", owner, words),
        _digest("bag", owner, sorted(word for clause in clauses for word in clause)),
        _digest("order", owner, sorted(" ".join(clause) for clause in clauses if clause)),
        says_any=bool(words),
    )


def _digest(name: str, owner: Iterable[str], words: Iterable[str]) -> str:
    text = "\x1f".join((f"t2i-{name}-v1", *owner, "", *words))
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def words_agree(one: str, other: str) -> bool | None:
    """Whether two prompts say the same; None = unknown."""
    return digest_words(one).agrees(digest_words(other).text)
