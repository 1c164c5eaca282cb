"""Tell callers where a text encoder stops reading, because the stock pipelines cut longer texts silently.

A pipeline's call gets tokenizers that note what they cut. So callers are told what really was cut. That holds also
where a pipeline wraps the prompt in a conversation or was given another length. Kandinsky 5 reads a text whole,
shortens it and reads it again: what was read last counts. Tokenizers that are written in Python go unnoted, as they
report no character offsets. Token counts leave out the special tokens and what a pipeline wraps around the text.
"""

import copy
import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from t2i_worker.jobs import PromptCut

NO_FURTHER: Mapping[str, str] = MappingProxyType({})


class _Place(NamedTuple):
    """Where a text of the request lies in what a tokenizer was given, in characters."""

    begin: int
    end: int
    negative: bool


class _Whole(NamedTuple):
    """A text of the request as an encoder was given it, wrapped in other words or not, and its tokens."""

    wrapped: str
    place: _Place
    tokens: int


class CutNotes:
    """What the encoders of one request did not read. One thread writes it.

    `further` are the texts that the request has for some encoders only, such as `prompt_2`, by their names. `most` is
    for pipelines that drop what is beyond so many tokens after they encoded it.
    """

    def __init__(
        self, prompt: str, negative_prompt: str, most: int | None = None, further: Mapping[str, str] = NO_FURTHER
    ) -> None:
        self._most = most
        texts = [(prompt, False), (negative_prompt, True)]
        texts += [(text, name.startswith("negative")) for name, text in further.items()]
        self._texts = sorted(texts, key=lambda one: -len(one[0]))  # a short text may be a part of a longer one
        self._found: dict[tuple[str, bool], PromptCut] = {}
        self._whole: dict[tuple[str, bool], _Whole] = {}

    @property
    def cuts(self) -> tuple[PromptCut, ...]:
        return tuple(self._found.values())

    def noting(self, name: str, component: Any) -> Any:
        """The component of this name; a tokenizer, and a processor that has one, is copied to one that notes here."""
        if getattr(component, "backend_tokenizer", None) is not None:
            encoder = name.replace("tokenizer", "text_encoder").replace("processor", "text_encoder")
            clone = copy.copy(component)
            clone.__class__ = _noting_class(type(component))  # type: ignore[arg-type]  # a class can be hashed
            clone.__dict__["t2i_note"] = functools.partial(self._note, encoder)
            return clone
        inner = getattr(component, "tokenizer", None)
        if getattr(inner, "backend_tokenizer", None) is None:
            return component
        clone = copy.copy(component)
        clone.tokenizer = self.noting(name, inner)
        return clone

    def _note(self, encoder: str, texts: Sequence[Any], encodings: Sequence[Any]) -> None:
        for text, encoding in zip(texts, encodings, strict=True):
            if isinstance(text, str) and (whole := self._read_whole(encoder, text, encoding)) is not None:
                kept, place = _ends(encoding, whole.place)[: self._most], whole.place
                if len(kept) < whole.tokens:
                    told = PromptCut(encoder, len(kept), whole.tokens, max(kept, default=0), place.negative)
                    self._found.setdefault((encoder, place.negative), told)

    def _read_whole(self, encoder: str, text: str, encoding: Any) -> _Whole | None:
        """A text of the request that is in this one, or of which this one is the beginning."""
        if (place := self._find(text)) is not None:
            tokens = sum(len(_ends(part, place)) for part in (encoding, *encoding.overflowing))
            self._whole[encoder, place.negative] = whole = _Whole(text, place, tokens)
            return whole
        known = [one for (name, _), one in self._whole.items() if name == encoder]
        return next((one for one in known if len(text) > one.place.begin and one.wrapped.startswith(text)), None)

    def _find(self, text: str) -> _Place | None:
        """Pipelines may strip a text or lower its case."""
        for own, negative in self._texts:
            words = own.strip()
            if words and (begin := text.lower().find(words.lower())) >= 0:
                return _Place(begin - (len(own) - len(own.lstrip())), begin + len(words), negative)
        return None


def _ends(encoding: Any, place: _Place) -> list[int]:
    """Where the tokens of this text end, in its own characters."""
    pairs = zip(encoding.offsets, encoding.special_tokens_mask, strict=True)
    return [
        end - place.begin
        for (begin, end), special in pairs
        if not special and begin < end and place.begin <= begin < place.end
    ]


@functools.cache
def _noting_class(kind: Any) -> type:
    class NotingTokenizer(kind):  # type: ignore[misc]
        def __call__(self, text: Any = None, *args: Any, **kwargs: Any) -> Any:
            read = super().__call__(text, *args, **kwargs)
            encodings = getattr(read, "encodings", None)
            if encodings:
                self.t2i_note([text] if isinstance(text, str) else text, encodings)
            return read

    return NotingTokenizer
