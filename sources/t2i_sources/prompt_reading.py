"""Decide whether a tokenizer reads a whole prompt. A vector of a part says nothing about the rest.

The decision uses the prompt, its form after the tokenizer's normaliser, and the tokens with their places in the prompt.
A prompt is not read whole if one of these holds:

    Cut      it is longer than the tokenizer's limit or ours
    Unknown  a token stands for "unknown"
    Dropped  a character is in no token, or lost the mark that makes it another letter
    Spelled  words became single letters, or a character became bytes: the vocabulary does not know the script or sign

Two prompts that lost something may have lost their difference: all-MiniLM-L6-v2 gives any two Thai prompts the cosine
1.000. Some losses are harmless: case, accents of European, Hebrew and Arabic letters, white space and invisible
joiners. So is the loss of punctuation between words, which some tokenizers leave out.
"""

import json
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from itertools import compress
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer

MAX_CHARACTERS = 2048  # longer prompts are cut before the tokenizer sees them
SPELLED_FROM = 4  # fewer non-Latin letters are too few to judge
LETTERS_A_TOKEN = 1.3  # of non-Latin letters; below this, the vocabulary holds letters of the script but no words
BYTES_FROM = 3  # a character that becomes this many tokens became bytes
_ACCENTED = ("LATIN", "GREEK", "CYRILLIC", "HEBREW", "ARABIC")
_SYLLABLES = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "ETHIOPIC")
_WORD_START = "\u2581"  # how SentencePiece writes a space
_TAGS = range(0xE0020, 0xE0080)  # invisible, but they distinguish flags
_STOPS = frozenset(",.;!?\u2026\u3001\u3002\uff0c\uff0e\uff1b\uff01\uff1f\u060c\u061b\u061f")
_VARIATIONS = (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0))


class Unread(StrEnum):
    """Why a prompt was not read whole."""

    CUT = "Cut"
    UNKNOWN = "Unknown"
    DROPPED = "Dropped"
    SPELLED = "Spelled"


@dataclass(frozen=True, slots=True)
class Reading:
    """A prompt's tokens, and why they miss a part of it; None if they do not."""

    encoding: Encoding
    unread: Unread | None


class PromptReader:
    """A tokenizer that tells what it did not read. Any thread may use it, but only one at a time.

    Raises:
        ValueError: the file holds no tokenizer.
    """

    def __init__(self, file: Path, max_tokens: int | None = None) -> None:
        """`max_tokens` overrides the limit that the file itself sets."""
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises no class of its own
            raise ValueError(f"{file.name} cannot be read: {error}") from error
        self._tokenizer.no_padding()  # prompts are encoded one by one
        if max_tokens is not None:
            self._tokenizer.enable_truncation(max_tokens)
        self._unknown = _unknown_id(file)

    def read(self, prompt: str) -> Reading:
        """Encode the beginning of the prompt, with special tokens."""
        seen = prompt[:MAX_CHARACTERS]
        encoding = self._tokenizer.encode(seen)
        return Reading(encoding, self._unread(prompt, seen, encoding))

    def _unread(self, prompt: str, seen: str, encoding: Encoding) -> Unread | None:
        if len(seen) < len(prompt) or encoding.overflowing:
            return Unread.CUT
        if self._unknown in encoding.ids:
            return Unread.UNKNOWN
        normalizer = self._tokenizer.normalizer
        kept = seen if normalizer is None else normalizer.normalize_str(seen)
        if _differ(kept, seen) or _has_gap(seen, encoding):
            return Unread.DROPPED
        if _is_spelled(seen, encoding):
            return Unread.SPELLED
        return None


def _unknown_id(file: Path) -> int | None:
    """The id of the "unknown" token. Unigram names the id; WordPiece, WordLevel and BPE the token; byte-level none."""
    document = json.loads(file.read_text())
    model = document["model"]
    number: int | None = model.get("unk_id")
    name = model.get("unk_token")
    if number is None and name is not None:
        added = (token["id"] for token in document.get("added_tokens", ()) if token["content"] == name)
        number = model["vocab"].get(name, next(added, None))
    return number


def _differ(kept: str, seen: str) -> bool:
    """Whether the normaliser removed more than harmless differences; most only remove case."""
    return kept.lower() != seen.lower() and _essence(kept) != _essence(seen)


def _essence(text: str) -> str:
    """The text without harmless differences."""
    if text.isascii():
        return text.lower().translate(_WITHOUT_SILENT)  # the same, at a twentieth of the cost
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    kept: list[str] = []
    accented = False
    for character in folded:
        if unicodedata.combining(character) and accented:
            continue
        if _is_silent(character):
            continue
        accented = unicodedata.name(character, "").startswith(_ACCENTED)
        kept.append(character)
    return "".join(kept)


def _is_silent(character: str) -> bool:
    """Spaces, punctuation, controls, joiners and variation selectors: they separate words or are invisible."""
    if character == _WORD_START or character.isspace() or character in _STOPS:
        return True
    code, category = ord(character), unicodedata.category(character)
    if category in ("Cc", "Zs", "Zl", "Zp"):
        return True
    return (category == "Cf" and code not in _TAGS) or any(code in span for span in _VARIATIONS)


_WITHOUT_SILENT = {code: None for code in range(128) if _is_silent(chr(code))}


def _has_gap(seen: str, encoding: Encoding) -> bool:
    """Whether a character with a meaning lies in no token."""
    outside = bytearray(b"\x01" * len(seen))
    for start, end in encoding.offsets:
        outside[start:end] = bytes(end - start)
    if not "".join(compress(seen, outside)).strip():
        return False  # only white space is uncovered, as nearly always
    accented = False
    for character, out in zip(seen, outside, strict=True):
        mark = bool(unicodedata.combining(character))
        if out and not (mark and accented) and not _is_silent(character):
            return True
        accented = accented if mark else unicodedata.name(character, "").startswith(_ACCENTED)
    return False


def _is_spelled(seen: str, encoding: Encoding) -> bool:
    """Whether non-Latin words have about as many tokens as letters, or a character became BYTES_FROM tokens."""
    letters, tokens, pieces = 0, 0, 0
    before = (-1, -1)
    for start, end in encoding.offsets:
        text = seen[start:end].lstrip()
        place = (end - len(text), end)  # some tokens include the space before a word
        pieces = pieces + 1 if place == before else 1
        if len(text) == 1 and pieces >= BYTES_FROM:
            return True
        if text and not text.isascii() and any(map(_is_foreign_letter, text)):
            letters += len(text) if pieces == 1 else 0
            tokens += 1
        before = place
    return letters >= SPELLED_FROM and letters < LETTERS_A_TOKEN * tokens


def _is_foreign_letter(character: str) -> bool:
    """A letter or vowel sign of a script that is not Latin and whose characters are no syllables or words."""
    if unicodedata.category(character)[0] not in "LM":
        return False
    return not unicodedata.name(character, "").startswith(("COMBINING", "LATIN", *_SYLLABLES))
