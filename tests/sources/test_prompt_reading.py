"""A prompt is compared with others only by an embedder that sees all of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from real_tokenizers import byte_level, kana_pieces, minilm_tokenizer, silent_bpe, unigram
from t2i_scenes import embedder_path
from t2i_sources.prompt_reading import MAX_CHARACTERS, PromptReader, Unread

OTHER_SCRIPTS = {
    "Thai": ("แมวดำนั่งบนกำแพง", Unread.UNKNOWN),
    "Khmer": ("ភ្នំមានព្រិល", Unread.UNKNOWN),
    "Burmese": ("ကြောင်မည်း", Unread.UNKNOWN),
    "Telugu": ("నల్ల పిల్లి గోడ మీద", Unread.UNKNOWN),
    "Gujarati": ("કાળી બિલાડી", Unread.UNKNOWN),
    "Amharic": ("ጥቁር ድመት", Unread.UNKNOWN),
    "Korean": ("담 위의 검은 고양이", Unread.UNKNOWN),
    "Hindi, whose vowels are lost": ("पुल पर लाल रेलगाड़ी", Unread.DROPPED),
    "Bengali, whose marks are lost": ("কালো বিড়াল দেয়ালে", Unread.DROPPED),
    "Arabic, letter by letter": ("قطة سوداء على الجدار", Unread.SPELLED),
    "Russian, letter by letter": ("снежная гора на закате", Unread.SPELLED),
    "Greek, letter by letter": ("χιονισμένο βουνό", Unread.SPELLED),
    "emoji alone": ("🐈🌙", Unread.UNKNOWN),
    "one emoji among words": ("a cat 🐈 on a wall", Unread.UNKNOWN),
    "an emoji that is newer than the tokenizer": ("a cat \U0001fac8", Unread.UNKNOWN),
    "a sign of a private alphabet, that is taken out": ("a cat \ue0b0", Unread.DROPPED),
    "the flag of one country, that is told by tags": ("a \U0001f3f4\U000e0067\U000e0062\U000e007f", Unread.UNKNOWN),
}


@pytest.mark.parametrize(("prompt", "why"), OTHER_SCRIPTS.values(), ids=OTHER_SCRIPTS.keys())
def test_english_encoder_does_not_read_other_scripts(prompt: str, why: Unread) -> None:
    """all-MiniLM-L6-v2 gives any two of them nearly the same vector."""
    assert PromptReader(minilm_tokenizer()).read(prompt).unread is why


@pytest.mark.parametrize(
    "prompt",
    [
        "A CAFÉ at night, déjà vu",
        "a cafe\u0301 at night",
        "(castle:1.4), [fog], <lora:x:0.8>\n\ttrending -- 8k!!",
        "wide letters\u200d and\ufeff joiners\u00ad",
        "a heart \u2665\ufe0f",
        "eine schwarze Katze auf der Straße",
    ],
)
def test_what_differs_by_right_is_read(prompt: str) -> None:
    """Case, accents, white space, width and joiners do not make another picture."""
    assert PromptReader(minilm_tokenizer()).read(prompt).unread is None


KINDS: dict[str, tuple[Callable[[Path], Path], str, Unread | None]] = {
    "unigram knows its words": (unigram, "a photo of cat แมวแดง", None),
    "unigram knows a word as it was composed": (unigram, "ａ photo of cat", None),
    "unigram has a number for the unknown": (unigram, "a photo of cat 🐈", Unread.UNKNOWN),
    "unigram that falls back to bytes": (lambda to: unigram(to, byte_fallback=True), "a cat 🐈", Unread.SPELLED),
    "bytes spell another script": (byte_level, "แมวดำ", Unread.SPELLED),
    "bytes of an accent are no spelling": (byte_level, "a café", None),
    "letters without an unknown one": (silent_bpe, "a cat 🐈", Unread.DROPPED),
    "letters that are all known": (silent_bpe, "A cat", None),
    "kana that keep their marks": (kana_pieces, "かき はと", None),
    "kana that lose their marks": (kana_pieces, "がき ばと", Unread.DROPPED),
}


@pytest.mark.parametrize(("make", "prompt", "why"), KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_tokenizer_tells(
    make: Callable[[Path], Path], prompt: str, why: Unread | None, tmp_path: Path
) -> None:
    """Whether it names the unknown token, numbers it, spells bytes, or drops in silence."""
    assert PromptReader(make(tmp_path)).read(prompt).unread is why


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ("On a plain backdrop, two red pluses.", None),
        ("a red ring; a blue cross!", None),
        ("a red ring 🐈", Unread.DROPPED),
        ("a red ring = a blue ring", Unread.DROPPED),
    ],
)
def test_stops_that_a_tokenizer_leaves_out_are_no_loss(prompt: str, why: Unread | None) -> None:
    """The embedded model's tokenizer knows words alone. More than a third of its own captions have a comma."""
    assert PromptReader(embedder_path() / "tokenizer.json").read(prompt).unread is why


def test_a_prompt_that_was_cut_is_not_read(tmp_path: Path) -> None:
    """By the tokenizer's own limit, by the encoder's, and by ours; one that just fits is read."""
    file = unigram(tmp_path)
    reader = PromptReader(file, max_tokens=3)
    assert reader.read("a red cat").unread is None
    assert reader.read("a red cat photo").unread is Unread.CUT
    whole = PromptReader(file)
    assert whole.read("a " * (MAX_CHARACTERS // 2)).unread is None
    assert whole.read("a " * (MAX_CHARACTERS // 2) + "cat").unread is Unread.CUT


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    """A transfer that went wrong."""
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        PromptReader(tmp_path / "tokenizer.json")
