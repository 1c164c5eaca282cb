"""Words that make another picture of nearly the same words: what is read, what agrees, and what is left unknown."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t2i_policy.distinguishing_words import digest_words, read_distinguishing_words, words_agree
from t2i_profiler.twins import make_twins
from t2i_scenes import caption, sample_scene

READ = {
    "numbers in words and digits": ("two dogs and 2 cats", ("two", "two")),
    "a number no line knows": ("17 boats", ("17",)),
    "negations": ("a street without cars, not wet, isn't dark", ("not", "not", "not", "wet", "dark")),
    "synonyms of colours": ("a crimson box, an azure ball", ("red", "blue")),
    "of each kind in order": ("a tiny red cat left of a huge blue dog", ("red", "blue", "small", "large", "left")),
    "phrases of place": ("boats from left to right, one above the other", ("row", "column")),
    "a word that a paraphrase leaves out": ("a cat on top of a box with a lid, above a mat", ()),
    "weights": ("(castle:1.40), (fog:0.2)", ("1.4", "0.2")),
    "numbers that count nothing": ("8k, 16:9, f/1.8, 50% grey, 35mm, 1 cat", ("gray",)),
    "nothing": ("", ()),
    "no such word": ("portrait of a king", ()),
    "another script": ("красный кот", None),
    "English with words of another script": ("a red cat in 東京", None),
    "German": ("ein roter Hund auf dem Sofa", None),
    "French": ("un chat rouge sur le mur", None),
    "an accent": ("a red café", ("red",)),
}


@pytest.mark.parametrize(("prompt", "words"), READ.values(), ids=READ.keys())
def test_words_are_read(prompt: str, words: tuple[str, ...] | None) -> None:
    """The first word of a line stands for it."""
    assert read_distinguishing_words(prompt) == words


AGREE = {
    "synonyms": ("a large red cube", "a big scarlet cube", True),
    "another order of kinds": ("a red and large dog", "a big red dog", True),
    "tags in another order": ("castle, red fog, night", "night, castle, red fog", True),
    "the same words, none of which distinguishes": ("Portrait of a king.", "portrait of the king", True),
    "colours exchanged": ("a red cube on a blue sphere", "a blue cube on a red sphere", False),
    "roles exchanged": ("a dog biting a man", "a man biting a dog", False),
    "roles of words that are not read": ("a horse riding an astronaut", "an astronaut riding a horse", False),
    "exchanged in another language": ("ein Hund beißt den Mann", "den Mann beißt ein Hund", False),
    "another number": ("three rings", "four rings", False),
    "one or several": ("a cat", "two cats", False),
    "a negation": ("a man with a hat", "a man without a hat", False),
    "left and right": ("a cat left of a dog", "a cat right of a dog", False),
    "another weight": ("(castle:1.4), fog", "(castle:0.2), fog", False),
    "nothing that distinguishes": ("portrait of a king", "portrait of a queen", None),
    "languages that are not read": ("ein roter Hund und eine Katze", "ein blauer Hund und eine Katze", None),
    "one that is not read": ("a red dog", "un perro rojo", None),
}


@pytest.mark.parametrize(("one", "other", "agree"), AGREE.values(), ids=AGREE.keys())
def test_prompts_agree_or_differ(one: str, other: str, agree: bool | None) -> None:
    """Either way round."""
    assert (words_agree(one, other), words_agree(other, one)) == (agree, agree)


@given(st.text())
def test_any_text_agrees_with_itself(prompt: str) -> None:
    """Whatever its language, case and stops."""
    assert words_agree(prompt, prompt) is True
    assert words_agree(prompt, f" {prompt} .") is True


@given(st.text(), st.text())
def test_agreement_goes_both_ways(one: str, other: str) -> None:
    """Neither prompt is special."""
    assert words_agree(one, other) is words_agree(other, one)


@given(st.integers(0, 10_000))
def test_twins_are_told(seed: int) -> None:
    """None of those that the profile makes of the scenes' captions passes for the same picture."""
    rng = np.random.default_rng(seed)
    prompt = caption(sample_scene(rng), rng)
    assert [twin for twin in make_twins(prompt, rng) if words_agree(prompt, twin.prompt) is not False] == []


@given(st.text(), st.text(min_size=1), st.text())
def test_digests_are_of_one_owner(prompt: str, owner: str, kept: str) -> None:
    """What a cache keeps is of a fixed length and safe in a key; what is no digest is unknown."""
    mine = digest_words(prompt, owner)
    assert len(mine.text) == 12
    assert set(mine.text) <= set("0123456789abcdef_")
    assert len(kept) == 12 or mine.agrees(kept) is None


def test_digests_of_other_owners_are_other_ones() -> None:
    """The same words leave nothing alike in two scopes: else one told the other's."""
    texts = {digest_words("a red cube on a blue sphere", f"scope {number}", "model").text for number in range(50)}
    assert len({text[:4] for text in texts}) >= 49


def test_many_readings_rarely_share_a_digest() -> None:
    """16 bits: of 5,000 pairs of different colours in a row, at most a few agree."""
    draw = random.Random(1)
    colours = ("red", "blue", "green", "black", "white", "pink", "brown", "purple", "orange", "gray")
    prompts = [" ".join(f"a {colour} thing" for colour in draw.choices(colours, k=9)) for _ in range(5_000)]
    pairs = [(one, other) for one, other in itertools.pairwise(prompts) if sorted(one) != sorted(other)]
    assert sum(words_agree(one, other) is True for one, other in pairs) <= 2
