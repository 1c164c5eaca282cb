"""Tell callers where a text encoder stops reading, because the stock pipelines cut longer texts silently.

A pipeline's tokenizer keeps settings that change with each call. So each limit owns a copy of the tokenizer that
never changes, and any thread may ask it. Token counts leave out the special tokens that an encoder adds.
"""

from typing import Any

from tokenizers import Tokenizer

from t2i_worker.jobs import PromptCut


class TextLimit:
    """The limit of one encoder. `max_tokens` counts special tokens too, as the pipelines do."""

    def __init__(self, encoder: str, tokenizer: Any, max_tokens: int) -> None:
        self.encoder = encoder
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._most = max(0, max_tokens - tokenizer.num_special_tokens_to_add())

    def cut(self, text: str, negative: bool = False) -> PromptCut | None:
        """Where the encoder stops; None if it reads the whole text."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        if len(offsets) <= self._most:
            return None
        kept_characters = offsets[self._most - 1][1] if self._most else 0
        return PromptCut(self.encoder, self._most, len(offsets), kept_characters, negative)


def limit_of(encoder: str, tokenizer: Any, max_tokens: int | None) -> TextLimit | None:
    """None if there is no such encoder, or its tokenizer, written in Python, does not report character offsets."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return None
    return TextLimit(encoder, tokenizer, tokenizer.model_max_length if max_tokens is None else max_tokens)
