"""Where a text encoder stops reading: the stock pipelines cut longer texts in silence, so callers must be told.

A tokenizer of a pipeline changes while it is used. So each limit has a copy of its own, which never does: it may be
asked by any thread. Tokens are counted without the special ones that an encoder adds.
"""

from typing import Any

from tokenizers import Tokenizer

from t2i_worker.jobs import PromptCut


class TextLimit:
    """One encoder's limit. `max_tokens` counts special tokens too, as the pipelines do."""

    def __init__(self, encoder: str, tokenizer: Any, max_tokens: int) -> None:
        self.encoder = encoder
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._most = max(0, max_tokens - tokenizer.num_special_tokens_to_add())

    def cut(self, text: str, negative: bool = False) -> PromptCut | None:
        """What is left of a text that is too long; None if all of it is read."""
        offsets = self._tokenizer.encode(text, add_special_tokens=False).offsets
        if len(offsets) <= self._most:
            return None
        kept_characters = offsets[self._most - 1][1] if self._most else 0
        return PromptCut(self.encoder, self._most, len(offsets), kept_characters, negative)


def limit_of(encoder: str, tokenizer: Any, max_tokens: int | None) -> TextLimit | None:
    """None where there is no such encoder, or its tokenizer cannot tell characters (it is written in Python)."""
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        return None
    return TextLimit(encoder, tokenizer, tokenizer.model_max_length if max_tokens is None else max_tokens)
