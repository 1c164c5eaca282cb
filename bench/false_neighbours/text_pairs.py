"""Minimal pairs of text: how near encoders put another picture and a paraphrase, and which of them words tell apart."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from t2i_policy.distinguishing_words import read_distinguishing_words, words_agree
from t2i_simulator.embedding import SentenceEncoder, embed

PAIRS = Path(__file__).with_name("pairs.tsv")
EDGES = (0.90, 0.95)
Agreement = Callable[[str, str], bool | None]


@dataclass(frozen=True, slots=True)
class TextPair:
    """`other` was made of `prompt`. It asks for another picture, or is a paraphrase: the control."""

    kind: str
    prompt: str
    other: str
    is_paraphrase: bool
    similarity: float


class TakenShares(NamedTuple):
    """Of pairs at a cosine from `edge` on, as shares of all of their sort."""

    edge: float
    twins_near: float
    twins_pass: float
    twins_agree: float
    controls_near: float
    controls_pass: float
    controls_agree: float


class NearestPrompts(NamedTuple):
    """Prompts of a list whose nearest other one is at a cosine from `low` up to `high`, by what their words say."""

    low: float
    high: float
    prompts: int
    agree: int
    differ: int
    unknown: int


def read_pairs(limit: int) -> list[TextPair]:
    """The file's pairs, every one with its control, by the sentence encoder."""
    with PAIRS.open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))[:: max(1, 200 // limit)]
    vectors = embed(SentenceEncoder(), [row[name] for row in rows for name in ("prompt", "twin", "paraphrase")])
    by_row = vectors.reshape(len(rows), 3, -1)
    return [
        TextPair(row["kind"], row["prompt"], row[name], at == 2, float(three[0] @ three[at]))
        for row, three in zip(rows, by_row, strict=True)
        for at, name in ((1, "twin"), (2, "paraphrase"))
    ]


def shares(pairs: Sequence[TextPair], edge: float, agreement: Agreement = words_agree) -> TakenShares:
    """Passing: near, and words are not known to differ."""
    found: list[float] = []
    for is_paraphrase in (False, True):
        sort = [one for one in pairs if one.is_paraphrase is is_paraphrase]
        near = [one for one in sort if one.similarity >= edge]
        agrees = [agreement(one.prompt, one.other) for one in near]
        whole = max(1, len(sort))
        found += [
            len(near) / whole,
            sum(one is not False for one in agrees) / whole,
            sum(one is True for one in agrees) / whole,
        ]
    return TakenShares(edge, *found)


def as_a_set(one: str, other: str) -> bool | None:
    """A weaker rule: which distinguishing words there are, in whatever order."""
    return _same(*(None if words is None else tuple(sorted(words)) for words in _read(one, other)))


def in_order(one: str, other: str) -> bool | None:
    """A weaker rule: distinguishing words in the order of each kind, without bag and order of all words."""
    return _same(*_read(one, other))


def _read(one: str, other: str) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    return read_distinguishing_words(one), read_distinguishing_words(other)


def _same(one: tuple[str, ...] | None, other: tuple[str, ...] | None) -> bool | None:
    if one is None or other is None:
        return None
    return (True if one else None) if one == other else False


RULES: dict[str, Agreement] = {
    "none": lambda _one, _other: True,
    "distinguishing words as a set": as_a_set,
    "in the order of each kind": in_order,
    "and the order of all words of one bag (shipped)": words_agree,
}


def prompts_of(file: Path) -> list[str]:
    """Different prompts of a text with one a line, or of the first column of a .tsv with a head."""
    lines = file.read_text(encoding="utf-8").splitlines()
    if file.suffix == ".tsv":
        lines = [line.partition("\t")[0] for line in lines[1:]]
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def nearest_prompts(prompts: Sequence[str]) -> list[NearestPrompts]:
    """Each prompt beside its nearest other one."""
    vectors = embed(SentenceEncoder(), prompts)
    cosines: np.ndarray[Any, np.dtype[np.float32]] = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    nearest, similarity = cosines.argmax(1), cosines.max(1)
    agrees = [words_agree(prompt, prompts[other]) for prompt, other in zip(prompts, nearest, strict=True)]
    rows = []
    for low, high in ((0.8, 0.9), (0.9, 0.95), (0.95, 1.01)):
        inside = [agree for agree, at in zip(agrees, similarity, strict=True) if low <= at < high]
        counts = (sum(one is kind for one in inside) for kind in (True, False, None))
        rows.append(NearestPrompts(low, high, len(inside), *counts))
    return rows
